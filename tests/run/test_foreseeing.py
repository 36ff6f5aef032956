"""``harness eval --dry-run``: what will be asked is counted as a run counts it, what is there is found, nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_runs import Command
from tiny_models import build_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from harness.records import ledger

pytestmark = pytest.mark.usefixtures("fresh")

STOCHASTOK = ["--plugin", "stochastok", "--method_args", "steps=2,batch_size=2,context_length=64"]


@pytest.fixture
def foreseen(evaluate: Command) -> Callable[..., dict[str, Any]]:
    """Return a function that gives what ``--dry-run --json`` says of one run."""

    def ask(*flags: object, **more: Any) -> dict[str, Any]:
        outcome = evaluate(*flags, "--dry-run", "--json", **more)
        assert outcome.code == 0, outcome.err
        [ahead] = json.loads(outcome.out)
        assert isinstance(ahead, dict)
        return ahead

    return ask


@pytest.mark.parametrize(
    ("tasks", "flags"),
    [
        ("colours", []),
        ("colours", ["--num_fewshot", "2", "--seed", "7"]),
        ("colours", ["--limit", "3", "--system_instruction", "Be brief."]),
        ("long_colours", []),
        ("colours", ["--samples", '{"colours": [1, 3]}']),
        ("plain_text", ["--limit", "2"]),
    ],
)
def test_tokens_and_cuts_are_those_of_the_run(
    tasks: str, flags: list[str], evaluate: Command, foreseen: Callable[..., dict[str, Any]]
) -> None:
    """Prompts, continuations, windows and what is cut: counted before as they are counted after."""
    [ahead] = foreseen(*flags, tasks=tasks)["tasks"]
    assert evaluate(*flags, tasks=tasks).code == 0
    record = ledger.read(Path("out")).records[0]
    scoring = record.cost.scoring or {}
    assert (ahead["tokens"], ahead["distinct_tokens"]) == (scoring["requested_tokens"], scoring["distinct_tokens"])
    assert (ahead["documents"], ahead["truncated"]) == (record.counts.docs, record.counts.truncated_requests)
    assert sum(ahead["requests"].values()) == record.counts.requests


def test_texts_are_counted_with_the_most_they_may_have(foreseen: Callable[..., dict[str, Any]]) -> None:
    [ahead] = foreseen("--gen_kwargs", "max_gen_toks=7", tasks="write_colours")["tasks"]
    assert ahead["requests"] == {"generate_until": 4}
    assert ahead["new_tokens"] == 28 and ahead["tokens"] > 0


def test_nothing_is_left_and_nothing_is_known_without_an_earlier_run(evaluate: Command) -> None:
    """No figure is invented: what nobody measured here is not known."""
    outcome = evaluate("--dry-run", "--output_path", "some/deep/folder")
    assert outcome.code == 0 and not Path("some").exists() and not Path("out").exists()
    assert "time not known" in outcome.out and "memory     not known" in outcome.out


def test_what_an_earlier_run_left_is_found_and_told(evaluate: Command, foreseen: Callable[..., dict[str, Any]]) -> None:
    flags = [*STOCHASTOK, "--with_baseline"]
    before = foreseen(*flags)
    assert before["is_asked_twice"] and before["apply_seconds"] is None
    assert evaluate(*flags).code == 0
    after = foreseen(*flags)
    told = "\n".join(after["earlier"])
    assert "run: ended before" in told and "is reused" in told and "baseline: reused, " in told
    assert not after["is_asked_twice"] and after["apply_seconds"]["value"] == 0
    assert "4 documents of it took" in after["tasks"][0]["seconds"]["basis"]
    assert after["peak_bytes"]["value"] > 0
    other = foreseen(*flags, "--seed", "5")  # nothing of it is there, but what it took with another seed
    assert "run: none like it" in "\n".join(other["earlier"])
    assert "with seed 0" in other["apply_seconds"]["basis"]
    assert foreseen(*STOCHASTOK, "--no-cache")["apply_seconds"]["value"] > 0


def test_a_task_alike_is_estimated_from_tokens_and_one_that_writes_is_not(
    evaluate: Command, foreseen: Callable[..., dict[str, Any]]
) -> None:
    assert evaluate().code == 0
    first, second = foreseen(tasks="long_colours,write_colours")["tasks"]
    assert "tokens of 1 tasks of this model took" in first["seconds"]["basis"]
    assert second["seconds"] is None


@pytest.mark.parametrize(
    "flags",
    [
        ["--plugin", "nowhere"],
        [*STOCHASTOK[:2], "--method_args", "stepz=2"],
        ["--limit", "0"],
        ["--samples", '{"colours": [9]}'],
        ["--num_fewshot", "4"],
        ["--apply_chat_template", "other"],
        ["--tasks", "fertility", "--model", "encoder"],
        ["--num_fewshot", "2", "--apply_chat_template"],
    ],
)
def test_what_eval_refuses_before_weights_is_refused_with_the_same_sentence(
    flags: list[str], evaluate: Command
) -> None:
    dry, real = evaluate(*flags, "--dry-run"), evaluate(*flags)
    assert (dry.code, dry.sentence) == (real.code, real.sentence)
    assert dry.code == 2 and dry.out == "" and not Path("out/run.json").exists()


@pytest.mark.parametrize("flags", ["attn_implementation=telepathy", "max_length=9999", "prefix_token_id=4000"])
def test_what_eval_finds_in_the_model_is_found_without_its_weights(
    flags: str, cli: Command, own_tasks: Path, tmp_path: Path
) -> None:
    """An attention that there is none of, places that were never learned: the architecture alone tells."""
    config = GPT2Config(vocab_size=400, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    build_tokenizer().save_pretrained(tmp_path / "gpt2")
    words = [
        "eval",
        "--model_args",
        f"pretrained={tmp_path / 'gpt2'},{flags}",
        "--include_path",
        own_tasks,
        "--tasks",
        "colours",
    ]
    dry, real = cli(*words, "--dry-run"), cli(*words)
    assert (dry.code, dry.sentence) == (real.code, real.sentence) and dry.code == 2


def test_an_adapter_for_layers_that_are_not_there_is_found_without_weights(
    cli: Command, tiny_model: Path, own_tasks: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}))
    names = [f"base_model.model.model.layers.9.self_attn.q_proj.lora_{part}.weight" for part in "AB"]
    save_file({names[0]: torch.ones(1, 32), names[1]: torch.ones(32, 1)}, folder / "adapter_model.safetensors")
    words = ["eval", "--model_args", f"pretrained={tiny_model},peft={folder}", "--include_path", own_tasks]
    outcome = cli(*words, "--tasks", "colours", "--dry-run")
    assert (
        outcome.code == 2
        and "layers that the model does not have (model.layers.9.self_attn.q_proj)" in outcome.sentence
    )


def test_a_task_whose_requests_cannot_be_made_is_told_as_eval_tells_it(cli: Command, tiny_model: Path) -> None:
    task = """
        task: broken
        custom_dataset: !function data.make
        test_split: test
        output_type: multiple_choice
        doc_to_text: "{{question}}"
        doc_to_choice: "{{nothing}}"
        doc_to_target: answer
        metric_list: [{metric: acc}]
    """
    Path("tasks").mkdir()
    Path("tasks/broken.yaml").write_text(task.replace("\n        ", "\n"), encoding="utf-8")
    data = "from datasets import Dataset\n\n"
    data += "def make(**_):\n    return {'test': Dataset.from_list([{'question': 'a', 'answer': 0}])}\n"
    Path("tasks/data.py").write_text(data, encoding="utf-8")
    words = ["eval", "--model_args", f"pretrained={tiny_model}", "--include_path", "tasks", "--tasks", "broken"]
    dry, real = cli(*words, "--dry-run"), cli(*words)
    assert dry.sentence == real.sentence and "broken" in dry.sentence
    assert dry.code != 0


def test_json_is_for_a_dry_run(evaluate: Command) -> None:
    outcome = evaluate("--json")
    assert outcome.code == 2 and "--json goes with --dry-run" in outcome.sentence


def test_answers_of_a_run_that_was_stopped_are_counted(
    evaluate: Command, foreseen: Callable[..., dict[str, Any]], make_method: Callable[..., str]
) -> None:
    """A run is stopped after its first task was answered: these answers are told, and those of the second are not there."""
    body = """
        def answer(requests, *args, **kwargs):
            raise KeyboardInterrupt
        lm.generate_until = answer
        return lm
    """
    flags = ["--plugin", make_method(body, members="leaves_model_unchanged: ClassVar[bool] = True")]
    assert evaluate(*flags, tasks="colours,write_colours").code == 130
    ahead = foreseen(*flags, tasks="colours,write_colours")
    assert [task["kept"] for task in ahead["tasks"]] == [16, 0]
    assert "run: interrupted; the same command goes on" in "\n".join(ahead["earlier"])
    assert foreseen(tasks="colours")["tasks"][0]["kept"] == 0
    [notes] = Path("out").glob("*/run.json")
    notes.write_text(json.dumps(json.loads(notes.read_text(encoding="utf-8")) | {"software": "of another day"}))
    ahead = foreseen(*flags, tasks="colours,write_colours")
    assert [task["kept"] for task in ahead["tasks"]] == [0, 0], "other software asks again"
