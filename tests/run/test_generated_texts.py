"""Generated texts through the command line: what is given there counts first, and the record holds what was applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import Command
from tiny_models import build_model

from harness.records.record import COMPUTED, Record
from harness.requests import CUT_IN_THINKING

TASK = """\
task: {name}
{kind}
output_type: generate_until
dataset_path: json
dataset_kwargs: {{data_files: {{test: d.jsonl}}}}
test_split: test
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {settings}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
# A task of lm-eval's older kind, which writes its settings into its requests itself.
OWN_REQUESTS = """\
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


class Own(ConfigurableTask):
    def __init__(self, config=None, **_):
        super().__init__(config={k: v for k, v in config.items() if k != "class"})

    def construct_requests(self, doc, ctx, **kwargs):
        settings = {"until": ["zzz"], "max_gen_toks": 8}
        return Instance("generate_until", doc, (ctx, settings), 0, metadata=kwargs["metadata"])
"""


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose text does not repeat itself."""
    return build_model(tmp_path_factory.mktemp("talker") / "model", tie_word_embeddings=False, initializer_range=0.2)


@pytest.fixture(scope="session")
def said(talker: Path) -> tuple[str, list[str]]:
    """What it says after the prompt: the text and its pieces."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(talker)
    ids = tokenizer("The clockmaker", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(talker)
    made = model.generate(**ids, do_sample=False, max_new_tokens=24)[0, ids["input_ids"].shape[1] :].tolist()
    return tokenizer.decode(made), [tokenizer.decode([token]) for token in made]


@pytest.fixture
def ask(fresh: None, cli: Command, talker: Path, records: Any) -> Any:
    """Return a function that evaluates tasks of given settings and returns the outcome, records and answers by task."""
    Path("d.jsonl").write_text(json.dumps({"q": "The clockmaker", "a": "x"}) + "\n", encoding="utf-8")
    Path("own.py").write_text(OWN_REQUESTS, encoding="utf-8")
    runs = iter(range(99))

    def run(tasks: dict[str, Any], *flags: object, model: Path = talker, **model_args: Any) -> tuple[Any, Any, Any]:
        for name, settings in tasks.items():
            kind = "class: !function own.Own" if name == "own" else ""
            text = TASK.format(name=name, kind=kind, settings=json.dumps(settings))
            Path(f"{name}.yaml").write_text(text, encoding="utf-8")
        out = Path(f"out{next(runs)}")
        words = ["--model_args", json.dumps({"pretrained": str(model), **model_args}), "--include_path", "."]
        outcome = cli("eval", *words, "--tasks", ",".join(tasks), "--output_path", out, *flags)
        samples = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.rglob("samples_*.jsonl"))]
        answers = dict(zip(sorted(tasks), samples, strict=False))
        return outcome, {record["task"]["name"]: record for record in records(out)}, answers

    return run


def test_what_the_command_line_gives_counts_first(ask: Any, said: tuple[str, list[str]]) -> None:
    """Case a_limit_that_is_ignored: four tokens, whatever the task calls its eight, and a task's own requests too."""
    text, pieces = said
    tasks = {
        "eight": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        "new": {"until": ["\n"], "max_new_tokens": 8, "do_sample": False, "temperature": 0.7},
        "own": {"until": ["\n"]},
    }
    outcome, found, answers = ask(tasks, "--gen_kwargs", "max_tokens=4")
    assert outcome.code == 0, outcome.err
    assert {name: row["resps"] for name, row in answers.items()} == {name: [["".join(pieces[:4])]] for name in tasks}
    for name in tasks:
        made = found[name]["generation"]
        assert made["max_gen_toks"] == 4 and made["do_sample"] is False and "temperature" not in made
        assert not found[name]["task"]["drawn"]
    assert found["own"]["generation"]["until"] == ["zzz"] and found["eight"]["generation"]["eos_token_id"] == [0]
    assert found["eight"]["settings"]["gen_kwargs"] == {"max_tokens": 4}
    outcome, found, answers = ask({"eight": tasks["eight"]}, "--gen_kwargs", json.dumps({"stop": [pieces[2]]}))
    assert outcome.code == 0 and answers["eight"]["resps"] == [[text.split(pieces[2])[0]]]
    for given, sentence in {
        "max_new_tokens=4,max_gen_toks=4": "--gen_kwargs gives both max_new_tokens and max_gen_toks, which are one thing",
        "best_of=4": "--gen_kwargs best_of is no setting of generated text",
    }.items():
        outcome, found, _ = ask({"eight": tasks["eight"]}, "--gen_kwargs", given)
        assert outcome.code == 2 and sentence in outcome.sentence and not found


def test_the_record_holds_what_drew_a_text(ask: Any, talker: Path, tmp_path: Path) -> None:
    """What transformers adds (50 tokens), what the checkpoint adds, and whether anything was drawn at all."""
    from shutil import copytree

    model = copytree(talker, tmp_path / "drawing")
    own = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    own |= {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 3}
    (model / "generation_config.json").write_text(json.dumps(own), encoding="utf-8")
    tasks = {"free": {"until": []}, "fixed": {"until": [], "do_sample": False, "temperature": 1, "max_gen_toks": 5}}
    _, found, _ = ask(tasks, model=model)
    assert "do_sample being false: the temperature of 1.0 decides nothing" in found["fixed"]["notes"][0]
    assert [found[name]["generation"]["max_gen_toks"] for name in ("free", "fixed")] == [3, 5]
    assert not any(record["task"]["drawn"] or record["generation"]["do_sample"] for record in found.values())
    outcome, found, _ = ask(tasks, "--gen_kwargs", "do_sample=true", model=model)
    assert all(record["task"]["drawn"] for record in found.values())
    made = {name: [found[name]["generation"][part] for part in ("temperature", "top_k", "top_p")] for name in found}
    assert made == {"free": [0.6, 50, 0.9], "fixed": [1.0, 50, 0.9]}
    outcome, found, _ = ask({"free": {"max_gen_toks": 2}}, "--gen_kwargs", r"until=\n")
    assert "until has a backslash and an n, no line break" in found["free"]["notes"][0]
    outcome, found, _ = ask({"free": {"until": ["."], "max_gen_toks": 2}}, "--gen_kwargs", "top_p=0.5")
    [note] = found["free"]["notes"]
    assert note == "--gen_kwargs top_p changes nothing, because texts are greedy; do_sample=true draws them"
    assert f"task 'free': {note}" in outcome.err


def test_thinking_is_no_answer(ask: Any, cli: Command, said: tuple[str, list[str]]) -> None:
    """Case stops_inside_thinking: the text behind the mark; and an empty answer, counted and told, where it never came."""
    text, pieces = said
    end = next(
        n for n in range(6, 20) if text.count(pieces[n]) == 1 and pieces[n].strip().isascii() and pieces[n].isalpha()
    )
    behind = text.split(pieces[end])[1]
    stop = next(p for p in pieces[1:end] if p.isascii() and p.strip() and p not in behind)
    task = {"think": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}}
    given = json.dumps({"until": [stop], "max_gen_toks": 24})
    _, found, answers = ask(task, "--gen_kwargs", given, think_end_token=pieces[end])
    assert answers["think"]["resps"] == [[behind.lstrip()]]
    assert found["think"]["counts"]["cut_in_thinking"] == 0 and found["think"]["notes"] == []
    given = json.dumps({"until": [], "max_gen_toks": 3})
    outcome, found, answers = ask(task, "--gen_kwargs", given, think_end_token=pieces[end])
    assert answers["think"]["resps"] == [[""]] and answers["think"]["traces"] == [[CUT_IN_THINKING]]
    assert found["think"]["counts"]["cut_in_thinking"] == found["think"]["counts"]["empty_answers"] == 1
    [note] = found["think"]["notes"]
    assert note.startswith(
        f"1 of 1 answers ended before '{pieces[end]}', while the model was still thinking, and are empty"
    )
    assert outcome.err.count(note) == 1
    assert cli("verify", "out1").code == 0
    [file] = Path("out1").rglob("records_*.jsonl")
    line = file.read_text(encoding="utf-8")
    record = Record.model_validate({n: value for n, value in json.loads(line).items() if n not in COMPUTED})
    other = record.model_copy(update={"counts": record.counts.model_copy(update={"cut_in_thinking": 0})})
    file.write_text(other.to_line() + "\n", encoding="utf-8")
    assert "its sample file holds 1 cut answers, the record says 0" in cli("verify", "out1").out
    file.write_text(line, encoding="utf-8")
    assert "still thinking" not in cli("show", "out0").out
    shown = cli("show", "out1").out
    assert "1 (1 still thinking)" in shown and "text of think" in shown and "max_gen_toks 3" in shown
