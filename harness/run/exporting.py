"""Write the model a method made as a folder that other tools load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.folders import check_writable, new_folder
from harness.methods.method import Baseline
from harness.names import printable
from harness.progress import suit_the_terminal
from harness.removal import refuse_links
from harness.run.artefacts import clean_file
from harness.run.preparing import Chosen, find_method, find_model, load
from harness.run.run import Run

# Files of a model that may name where it or its base came from.
SAYS_WHERE_FROM = ("README.md", "config.json", "adapter_config.json")


def apply_and_write(run: Run, output: Path) -> str:
    """Apply the method of ``run`` to its model, write model and tokenizer to ``output``, and say what was written.

    Raises:
        HarnessError: the folder exists, the run is wrong, or the LM that the method returns is more than a model and a
            tokenizer, so that no folder can hold it.
    """
    from harness.models.causal import CausalLM
    from harness.models.kinds import kind_of
    from harness.run.applying import apply_to

    suit_the_terminal()
    if not kind_of(run.model).has_weights or kind_of(run.model).refusal:
        raise HarnessError("harness apply writes weights, so it needs --model hf")
    refuse_links(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HarnessError(f"'{printable(output)}' exists already; name a new folder with --output")
    plugin, method = find_method(run)
    source = find_model(run)
    check_writable(output.absolute().parent)
    chosen = Chosen(run, plugin, method, source)
    applied = apply_to(chosen, load(chosen))
    if type(applied.lm) is not CausalLM:
        raise HarnessError(
            f"method '{method.name}' makes a {type(applied.lm).__name__}, which changes how a model is used rather than "
            "its weights; no folder can hold that"
        )
    if source.peft and hasattr(applied.lm.model, "peft_config") and not isinstance(method, Baseline):
        raise HarnessError(
            f"method '{method.name}' changed a model whose adapter (peft=...) is left active, and no folder can hold both; merge "
            "the adapter first, into weights that are not quantised"
        )
    try:
        return _write(applied.lm, output)
    except OSError as error:
        raise HarnessError(f"could not write '{printable(output)}': {error.strerror or error}") from error


def _write(lm: Any, output: Path) -> str:
    from peft import PeftModel

    from harness.methods.adapters import forget_base

    is_adapter = isinstance(lm.model, PeftModel)
    with new_folder(output) as folder:
        lm.model.save_pretrained(str(folder))
        lm.tokenizer.save_pretrained(str(folder))
        for config in list(folder.rglob("adapter_config.json")) if is_adapter else ():
            forget_base(config.parent)
        for name in SAYS_WHERE_FROM:
            if (folder / name).is_file():
                clean_file(folder / name)
    if is_adapter:
        return f"wrote a PEFT adapter to {output}: load it on its base with `lm_eval --model_args pretrained=BASE,peft={output}`"
    return f"wrote a model to {output}: `lm_eval --model hf --model_args pretrained={output}`"
