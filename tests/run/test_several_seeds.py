"""One command for several seeds leaves the records of several commands, and does once what they have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval_answers import llama

from harness.records import samples
from harness.run.changes import CodeState, ModelState

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]

NOISY = """
import torch
torch.manual_seed(seed)
with torch.no_grad():
    for weights in lm.model.parameters():
        weights.add_(torch.randn_like(weights), alpha=self.amount)
return lm
"""
# Leaves every tensor alone, and the model another one.
HOOKED = """
lm.model.lm_head.register_forward_hook(lambda module, inputs, logits: logits * (1 + seed))
return lm
"""
UNCHANGED = "leaves_model_unchanged: ClassVar[bool] = True"
TIMES = {"created", "cost", "digest"}


def content(folder: Path, records: Records) -> list[Any]:
    """Return the records below a folder with all that their files and commands say, without times."""
    found = []
    for file in sorted(folder.rglob("records_*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            rows = list(samples.rows(file.parent / record["samples"]["path"]))
            record["samples"] = record["samples"]["rows"]
            record["command"] = re.sub(r"--output_path \S+", "", record["command"])
            found.append(
                [file.relative_to(folder).as_posix(), {k: v for k, v in record.items() if k not in TIMES}, rows]
            )
    return found


@pytest.mark.parametrize(
    ("body", "members", "flags", "loaded", "baselines"),
    [
        (NOISY, "", ["--with_baseline"], 1, 1),
        (NOISY, "", ["--with_baseline", "--num_fewshot", "1"], 1, 2),
        (HOOKED, UNCHANGED, [], 2, 0),
        ("return lm.replace()", UNCHANGED, ["--with_baseline", "--gen_kwargs", "do_sample=True,temperature=2.0"], 1, 2),
    ],
)
def test_records_are_those_of_a_command_for_each_seed(
    body: str,
    members: str,
    flags: list[str],
    loaded: int,
    baselines: int,
    make_method: Any,
    evaluate: Command,
    records: Records,
) -> None:
    words = ["--plugin", make_method(body, members=members), *flags]
    tasks = "colours,write_colours"
    together = evaluate(*words, "--seeds", "3,4", "--output_path", "together", tasks=tasks)
    assert together.code == 0, together.err
    for seed in (3, 4):
        assert evaluate(*words, "--seed", seed, "--output_path", "apart", tasks=tasks).code == 0
    found = content(Path("together"), records)
    assert found == content(Path("apart"), records)
    assert {record["seeds"]["random"] for _, record, _ in found if record["method"]["name"] == "invented"} == {3, 4}
    assert together.err.count("loading tiny") == loaded
    assert together.err.count("evaluating baseline") == baselines
    assert f"{len(found)} records in " in together.out
    assert "invented (seed 3)" in together.out


@pytest.mark.parametrize(("flags", "asked"), [([], 1), (["--num_fewshot", "1"], 3)])
def test_the_untouched_model_is_asked_once_for_seeds_that_decide_nothing(
    flags: list[str], asked: int, evaluate: Command, records: Records
) -> None:
    together = evaluate(*flags, "--seeds", "1", "2,3", "--output_path", "together")
    assert together.code == 0, together.err
    assert together.err.count("evaluating baseline") == asked
    assert ("seed 1, 2 would ask and answer the same" in together.err) == (asked == 1)
    assert together.err.count("loading tiny") == 1
    for seed in (1, 2, 3):
        assert evaluate(*flags, "--seed", seed, "--output_path", "apart").code == 0
    assert content(Path("together"), records) == content(Path("apart"), records)


def test_a_seed_that_fails_stops_none_after_it(make_method: Any, evaluate: Command, records: Records) -> None:
    plugin = make_method("assert seed != 1, 'an unlucky number'\n" + NOISY)
    outcome = evaluate("--plugin", plugin, "--seeds", "1,2,1000")
    assert outcome.code == 1
    assert outcome.sentence.startswith("harness: seed 1: method 'invented' of plugin 'invention' ")
    assert "an unlucky number" in outcome.sentence
    assert [record["seeds"]["random"] for record in records(Path("out"))] == [1000, 2] or len(records(Path("out"))) == 2
    assert evaluate("--plugin", plugin, "--seeds", "1", "--output_path", "none").code == 2


def test_what_a_method_leaves_in_a_model_and_in_the_code_is_seen(tokenizer: Any) -> None:
    model = llama(tokenizer)
    layer = model.model.layers[0].mlp
    changes: list[Callable[[], Any]] = [
        lambda: layer.up_proj.weight.data.mul_(2),
        lambda: layer.register_forward_hook(lambda *_: None),
        lambda: setattr(layer, "forward", lambda x: x),
        lambda: setattr(layer, "act_fn", torch.nn.ReLU()),
        lambda: setattr(model.model.norm, "variance_epsilon", 0.5),
        lambda: model.train(),
        lambda: model.requires_grad_(not layer.up_proj.weight.requires_grad),
        lambda: setattr(model.config, "rope_theta", 3.0),
        lambda: setattr(model.generation_config, "temperature", 0.3),
        lambda: setattr(model.lm_head, "weight", torch.nn.Parameter(model.lm_head.weight.detach().clone())),
    ]
    for change in changes:
        before = ModelState.of(model)
        assert before == ModelState.of(model)
        change()
        assert before != ModelState.of(model)


def test_code_that_was_replaced_is_put_back(tokenizer: Any) -> None:
    from transformers.models.llama import modeling_llama

    from harness.models.causal import CausalLM

    code = CodeState.of(CausalLM(llama(tokenizer), tokenizer, batch_size=1))
    assert code.put_back() == []
    kind = modeling_llama.LlamaMLP
    forward, rotate = kind.forward, modeling_llama.rotate_half
    kind.forward = modeling_llama.rotate_half = lambda *_: None  # type: ignore[assignment, method-assign]
    CausalLM.extra_step = lambda self: None  # type: ignore[attr-defined]
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    names = code.put_back()
    assert (kind.forward, modeling_llama.rotate_half, hasattr(CausalLM, "extra_step")) == (forward, rotate, False)
    assert not torch.nn.modules.module._global_forward_hooks
    handle.remove()
    assert "transformers.models.llama.modeling_llama.LlamaMLP" in names and len(names) == 4
