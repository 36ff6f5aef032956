"""How a model makes a vector of a text, read from the files of its folder: those of sentence-transformers, or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, suggestion

# By the names that are written here, with those that sentence-transformers gives them.
POOLINGS = ("mean", "cls", "last", "eos", "weighted_mean", "max", "mean_sqrt_len")
ALSO_CALLED = {"lasttoken": "last", "weightedmean": "weighted_mean", "mean_sqrt_len_tokens": "mean_sqrt_len"}
MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
# Where the longest text stands; the name depends on the architecture.
LIMITS = tuple(f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert",
               "xlm-roberta", "xlnet"))  # fmt: skip
# Older files say each pooling by a switch, in the order in which what they give stands side by side.
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
# The parts of a folder, in the only order that is known here: whatever stands elsewhere would make other vectors.
PARTS = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")
# What the file of limits may say beside ``max_seq_length`` and ``do_lower_case``; ``unpad_inputs`` decides speed alone.
SAID = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
READ = frozenset({"max_seq_length", "do_lower_case", "unpad_inputs"})
PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
OF_TEXTS = "sentence_embedding"
INSTRUCT = "Instruct: {task}\nQuery: "


@dataclass(frozen=True, slots=True)
class Way:
    """How a text becomes a vector.

    Attributes:
        pooling: of ``POOLINGS``; what several give stands side by side.
        is_causal: its tokens look back alone.
        is_laid_out: beginning, instruction, text and end are put together as ids, and the text alone is pooled; otherwise the
            tokenizer puts its own special tokens around instruction and text, and all of it is pooled.
        normalise: whether vectors have length 1.
        max_length: tokens of the longest text, with all that stands around it; None where only the model bounds it.
        prompts: what stands before a text, by role or name.
        default_prompt: the name of the one that stands before a text of no role; None for none.
        template: what stands before a text with an instruction, which is put in for ``{task}``, and, where ``{text}`` stands in
            it, after every text; empty: instructions are not read.
        pools_prompt: whether the tokens of a prompt are pooled, too, where the text is not laid out.
        lowercase: whether texts are made lower-case first.
        dense: folders of layers that follow the pooling, in order.
        width: how many of a vector's numbers are kept, from the first on; None for all.
    """

    pooling: tuple[str, ...] = ("mean",)
    is_causal: bool = False
    is_laid_out: bool = False
    normalise: bool = True
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    template: str = ""
    pools_prompt: bool = True
    lowercase: bool = False
    dense: tuple[Path, ...] = ()
    width: int | None = None

    def around(self, instruction: str | None, role: str | None) -> tuple[str, str]:
        """Return what stands before and after a text.

        An instruction counts where there is a template for it; then the prompt for the role, if the model has one; then,
        of a text without a role, the default prompt.
        """
        before, _, after = self.template.partition("{text}")
        if "{task}" not in before:
            if before or after:
                return before, after
        elif instruction:
            return before.replace("{task}", instruction), after
        name = self.default_prompt if role is None else role
        return self.prompts.get(name or "", ""), after


def place_of(folder: Path) -> Path | None:
    """Return the folder whose files say how a text becomes a vector: a model's own, or the one that it is a part of."""
    if (folder / MODULES).is_file():
        return folder
    above = folder.parent
    is_part = (above / MODULES).is_file() and any(str(one.get("path")) == folder.name for one in _modules(above))
    return above if is_part else None


def model_in(folder: Path) -> Path:
    """Return where the weights of a folder lie: in it, or in the part of it that its files name."""
    if (folder / "config.json").is_file() or not (folder / MODULES).is_file():
        return folder
    parts = [folder / str(one.get("path")) for one in _modules(folder) if str(one.get("type")).endswith("Transformer")]
    return parts[0] if parts and parts[0].is_dir() else folder


def own_files(model: Path) -> list[Path]:
    """Return the files that ``read`` reads for the weights in a folder, and those of layers after the pooling."""
    folder = place_of(model)
    if folder is None:
        return []
    named = [place / name for name in (MODULES, PROMPTS, *LIMITS) for place in dict.fromkeys((folder, model))]
    below = [folder / str(one.get("path") or ".") for one in _modules(folder)]
    apart = [place for place in below if place.resolve() not in (folder.resolve(), model.resolve())]
    inside = [path for place in apart for path in sorted(place.glob("*"))]
    return [path for path in (*named, *inside) if path.is_file()]


def read(folder: Path, model: Path | None = None) -> Way:
    """Return how the files of a sentence-transformers folder say that a text becomes a vector.

    Args:
        model: where its weights lie, if not beside them.

    Raises:
        HarnessError: a file is none, or names a part that is not known here.
    """
    parts = _parts(folder)
    pooling, pools_prompt = _pooling(parts["Pooling"][0] / "config.json")
    for place in parts["Normalize"]:
        _check_of_texts(place / "config.json")
    limits, said = _limits(model or folder), _object(folder / PROMPTS)
    return Way(
        pooling=pooling,
        pools_prompt=pools_prompt,
        normalise=bool(parts["Normalize"]),
        dense=tuple(parts["Dense"]),
        max_length=limits.get("max_seq_length"),
        lowercase=bool(limits.get("do_lower_case")),
        width=said.get("truncate_dim"),
        **_prompts(folder / PROMPTS, said),
    )


def pooling_named(name: str) -> str:
    """Return a pooling by its name here or the one that sentence-transformers gives it. Raises ``HarnessError`` for another."""
    found = ALSO_CALLED.get(name, name)
    if found not in POOLINGS:
        raise HarnessError(f"pooling '{printable(name)}' is unknown; {suggestion(name, POOLINGS)}")
    return found


def _modules(folder: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HarnessError(f"{printable(folder / MODULES)} is not valid JSON: {printable(error)[:200]}") from error
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise HarnessError(f"{printable(folder / MODULES)} is no list of parts")
    return value


def _parts(folder: Path) -> dict[str, list[Path]]:
    """Return the folders of each kind of part. Raises ``HarnessError`` for an unknown kind, or another order."""
    found, names, kinds = {kind: list[Path]() for kind in PARTS}, printable(folder / MODULES), list[str]()
    for module in _modules(folder):
        package, _, kind = str(module.get("type", "")).rpartition(".")
        if kind not in PARTS or package.partition(".")[0] != "sentence_transformers":
            raise HarnessError(
                f"{names} names a part of the kind '{printable(str(module.get('type')))}'; known here are those of "
                f"sentence_transformers that are called {', '.join(PARTS[:-1])} and {PARTS[-1]}"
            )
        found[kind].append(folder / str(module.get("path") or "."))
        kinds.extend([kind] if kind != "Dropout" else [])  # which does nothing but in training
    if not found["Pooling"]:
        raise HarnessError(f"{names} names no Pooling, without which there is no vector of a text")
    if kinds != sorted(kinds, key=PARTS.index) or len(found["Pooling"]) > 1 or len(found["Transformer"]) != 1:
        raise HarnessError(
            f"{names} puts its parts in the order {', '.join(kinds)}; known here are one Transformer, one Pooling, then Dense, "
            "then Normalize"
        )
    return found


def _check_of_texts(path: Path) -> None:
    """Raise ``HarnessError`` where a part after the pooling reads or writes something else than a text's vector."""
    said = _object(path)
    for name in ("module_input_name", "module_output_name"):
        if said.get(name) not in (None, OF_TEXTS):
            raise HarnessError(f"{printable(path)} says {name} {printable(str(said[name]))}; known here is {OF_TEXTS}")


def _prompts(path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    prompts, default = said.get("prompts"), said.get("default_prompt_name")
    found = {str(name): str(text) for name, text in prompts.items()} if isinstance(prompts, dict) else {}
    if default is not None and default not in found:
        raise HarnessError(
            f"{printable(path)} names the default prompt '{printable(str(default))}', which is none of its prompts"
        )
    return {"prompts": found, "default_prompt": default}


def _pooling(path: Path) -> tuple[tuple[str, ...], bool]:
    said = _object(path)
    named = said.get("pooling_mode")
    if named is None:
        modes = tuple(mode for switch, mode in SWITCHES.items() if said.get(switch)) or ("mean",)
    else:
        modes = tuple(pooling_named(str(name)) for name in (named if isinstance(named, list) else [named]))
    return modes, bool(said.get("include_prompt", True))


def _limits(folder: Path) -> dict[str, Any]:
    """Return what the file of limits says. Raises ``HarnessError`` where it says what would make other vectors."""
    path = next((folder / name for name in LIMITS if (folder / name).is_file()), None)
    if path is None:
        return {}
    found = _object(path)
    kinds = found.get("modality_config", {"text": PLAIN_TEXT})
    if not isinstance(kinds, dict) or kinds.get("text") != PLAIN_TEXT or "message" in kinds:
        raise HarnessError(
            f"{printable(path)} says that texts are laid out as messages of a chat, or read in another way than as they are "
            "(modality_config); here they are read as they are"
        )
    for name in sorted(set(found) - READ - {"modality_config"}):
        if found[name] and found[name] != SAID.get(name):
            raise HarnessError(
                f"{printable(path)} says {printable(name)}: {printable(str(found[name]))[:100]}, which is not known here and may "
                "make other vectors"
            )
    return found


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HarnessError(f"{printable(path)} is not valid JSON: {printable(error)[:200]}") from error
    if not isinstance(value, dict):
        raise HarnessError(f"{printable(path)} is no JSON object")
    return value
