"""The method: its options, whole runs with records and samples, what an interrupted one keeps, baselines by one switch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from answered import training_row, write_lines
from published_rows import ceiling

from harness import HarnessError
from harness.methods.options import build
from harness.run.evaluating import evaluate
from harness.run.preparing import prepare
from harness.run.run import Run
from harness_tool_tokens.method import ToolTokens
from harness_tool_tokens.tasks import data

TASKS = """\
from datasets import Dataset


def make(**_):
    rows = []
    for number in range(6):
        question = f"What is {number} and {number + 3}?"
        calls = [{"tool": "add", "args": f"{number}, {number + 3}", "result": str(2 * number + 3), "before": ""}]
        rows.append(
            {
                "question": question,
                "answer": str(2 * number + 3),
                "prompt": f"Q: What is 1 and 1?\\nA: 1+1=2\\n\\nQ: {question}\\nA:",
                "tool_use": {
                    "procedure": "calls", "question": question, "prompts": "sums", "calls": calls,
                    "tools": ["add", "multiply"],
                },
            }
        )
    return {"test": Dataset.from_list(rows)}
"""
SUMS = """\
task: sums
custom_dataset: !function made.make
test_split: test
output_type: generate_until
doc_to_text: prompt
doc_to_target: answer
generation_kwargs:
  until: ["\\n"]
  do_sample: false
  max_gen_toks: 8
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
FORCED: dict[str, Any] = {"bias": 50.0, "max_calls": 2, "max_argument_tokens": 6}
CHOICE_FOLDER = str(Path(data.__file__).parent)


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_TOOL_DATA", raising=False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task ``sums`` of six documents, and ``rows.jsonl`` to train on."""
    folder = tmp_path_factory.mktemp("sums")
    (folder / "made.py").write_text(TASKS, encoding="utf-8")
    (folder / "sums.yaml").write_text(SUMS, encoding="utf-8")
    rows = []
    for tool, sign in (("add", "+"), ("multiply", "*")):
        for number in range(10, 16):
            result = str(number + 2 if tool == "add" else number * 2)
            text = f"Q: What is {number} {tool} 2?\nA: It is {number}{sign}2={result} in all."
            start = text.rindex("=") + 1
            call = {"tool": tool, "args": f"{number}, 2", "result": result, "start": start, "end": start + len(result)}
            rows.append({"id": f"{tool}-{number}", "text": text, "calls": [call]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def run(folder: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., list[Any]]:
    """Return a function that evaluates the method with options on ``sums`` and returns its records."""

    def running(options: dict[str, Any] | None = None, *, out: str = "out", **settings: Any) -> list[Any]:
        plugin = {"plugin": "tool_tokens", "method_args": options} if options is not None else {}
        given = {
            "tasks": ("sums",),
            "model_args": {"pretrained": str(tiny_model)},
            "include_path": (str(folder),),
            "output_path": tmp_path / out,
            **plugin,
            **settings,
        }
        return evaluate(Run(**given))

    return running


def samples(out: Path, task: str = "sums") -> list[dict[str, Any]]:
    """Return the rows of the newest sample file of a task."""
    files = sorted(out.rglob(f"samples_{task}_*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    return [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]


def rows_in(out: Path) -> bytes:
    [file] = out.rglob("tool_rows.safetensors")
    return file.read_bytes()


def told(out: Path) -> list[tuple[Any, Any]]:
    return [(row["resps"], row.get("traces")) for row in samples(out)]


# --- options ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": -1}, "steps is -1; it has to be 0 or more"),
        ({"steps": "ten"}, "steps is 'ten'; give a whole number, or 10 epochs"),
        ({"penalty": "squared:1"}, "penalty is 'squared:1'; give a number, 0 or more, or norm:0.01"),
        ({"positions": 0}, "positions is 0"),
        ({"positions": "words"}, "positions"),
        ({"rows_file": "a", "train_file": "b"}, "rows_file and train_file are both given"),
        ({"variant": "random_start", "rows_file": "a"}, "variant=random_start starts anew"),
        ({"variant": "zero_start", "rows_file": "a"}, "variant=zero_start starts anew"),
        ({"variant": "no_tool"}, "no_tools"),
        ({"on_error": "crash"}, "next_best"),
        ({"max_calls": -1}, "max_calls is -1; it has to be 0 or more"),
        ({"max_argument_tokens": 0}, "max_argument_tokens is 0; it has to be 1 or more"),
        ({"holdout": -1}, "holdout is -1"),
        ({"penalty": -0.5}, "penalty is -0.5"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"tool_timeout": -1}, "tool_timeout is -1"),
        ({"shots_per_tool": -1}, "shots_per_tool is -1"),
        ({"prior_text": "no slot"}, "prior_text 'no slot' has no slot"),
        ({"bias": "much"}, "bias"),
        ({"bias": "nan"}, "bias"),
        ({"bias": "inf"}, "bias"),
        ({"learning_rate": "nan"}, "learning_rate"),
        ({"penalty": "nan"}, "penalty"),
        ({"max_cals": 1}, "max_calls"),
    ],
)
def test_options_that_no_run_could_use_are_refused_in_one_sentence(options: dict[str, Any], words: str) -> None:
    """Section 8 and brief: wrong combinations and values are refused in one sentence, before anything is loaded."""
    with pytest.raises(HarnessError) as refused:
        build(ToolTokens, options)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_first_of_a_file_are_trained_on_and_never_none(folder: Path) -> None:
    """FILE[:2] are the first two rows, whatever the file's name; a file that is really called so is taken whole."""
    file = str(folder / "rows.jsonl")
    everything, first = (build(ToolTokens, {"tools": "gsm8k", "train_file": name}) for name in (file, f"{file}[:2]"))
    assert first._rows[0] == everything._rows[0][:2]  # type: ignore[attr-defined]
    assert first.fingerprint() != everything.fingerprint()
    with pytest.raises(HarnessError, match="the first 0 rows of a file are asked for"):
        build(ToolTokens, {"tools": "gsm8k", "train_file": f"{file}[:0]"}).fingerprint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_file": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"rows_file": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"prompts_file": "nowhere.json"}, "nowhere.json"),
        ({"tools": "arithmetics"}, "arithmetic"),
    ],
)
def test_files_and_tools_that_are_not_there_stop_a_run_before_the_weights(
    run: Callable[..., Any], options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 8: errors in words; fingerprint() finds them before weights are loaded."""

    def loading(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("harness.run.untouched.load", loading)
    with pytest.raises(HarnessError) as refused:
        run(options)
    assert words in str(refused.value)


def test_a_model_without_weights_is_refused_in_a_sentence(run: Callable[..., Any], folder: Path) -> None:
    """Brief: the method needs a model (--model tokenizer)."""
    with pytest.raises(HarnessError) as refused:
        run({}, model="tokenizer")
    assert "TokenizerOnly" in str(refused.value) and "--model hf" in str(refused.value)


def test_applied_to_a_tokenizer_alone_the_method_says_what_it_needs(tokenizer: Any, tmp_path: Path) -> None:
    """Brief: the method needs a model."""
    from harness.models.tokenizer_only import TokenizerOnly

    with pytest.raises(HarnessError, match="needs a model that generates, which TokenizerOnly is not"):
        ToolTokens().apply(TokenizerOnly(tokenizer), seed=0, workdir=tmp_path)


# --- runs -------------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_records_rows_a_report_and_traces(run: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """Section 8: for each answer a trace in the sample file; a saved file of a few kB; report of the training."""
    options = {**FORCED, "train_file": str(folder / "rows.jsonl"), "steps": 5, "shots_per_tool": 2, "tools": "gsm8k"}
    [record] = run(options)
    assert record.task.name == "sums"
    assert record.report["bias"] == 50.0 and record.report["steps"] == 5
    rows = samples(tmp_path / "out")
    assert len(rows) == 6
    for row in rows:
        [trace] = row["traces"]
        assert 1 <= len(trace) <= 2
        for call in trace:
            assert set(call) == {
                "tool", "at", "margin", "arguments", "result", "error", "detail", "forced", "before", "after",
            }  # fmt: skip
            assert call["tool"] in ("add", "multiply")  # what the documents allow
    assert len(rows_in(tmp_path / "out")) < 20_000


def test_seeds_draw_shots_and_the_same_seed_gives_the_same_bytes(
    run: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acceptance property 9, through a run: same seed, same rows to the byte; another seed, other shots."""
    options = {**FORCED, "train_file": str(folder / "rows.jsonl"), "steps": 3, "shots_per_tool": 1, "tools": "gsm8k"}
    for out, seed in (("one", 0), ("two", 1)):
        run(options, out=out, seeds=(seed, 1234, 1234, 1234))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "another-cache"))
    run(options, out="again", seeds=(0, 1234, 1234, 1234))
    digests = {out: hashlib.sha256(rows_in(tmp_path / out)).hexdigest() for out in ("one", "two", "again")}
    assert digests["one"] == digests["again"] != digests["two"]
    assert told(tmp_path / "one") == told(tmp_path / "again")


def test_saved_rows_answer_as_the_run_that_made_them(run: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """Acceptance property 17 and brief: rows_file gives identical answers; an explicit bias takes its place."""
    made = {"train_file": str(folder / "rows.jsonl"), "steps": 5, "tools": "gsm8k", "max_argument_tokens": 6}
    run(made | {"bias": 2.5}, out="made")
    [file] = (tmp_path / "made").rglob("tool_rows.safetensors")
    common = {"rows_file": str(file), "tools": "gsm8k", "max_argument_tokens": 6}
    [loaded] = run(common, out="loaded")
    assert told(tmp_path / "loaded") == told(tmp_path / "made")
    assert loaded.report["bias"] == 2.5
    [silent] = run(common | {"bias": -1e9}, out="silent")
    assert silent.report["bias"] == -1e9
    assert all(traces == [[]] for _, traces in told(tmp_path / "silent"))
    assert any(traces != [[]] for _, traces in told(tmp_path / "loaded"))


def test_baselines_come_by_one_switch_and_are_told_apart(run: Callable[..., Any], tmp_path: Path) -> None:
    """Section 8: baselines by one switch; section 9: tools, bias and variant are in the identity of a run."""
    variants = ("no_tools", "tools", "in_context", "oracle_tool", "oracle_call", "random_start", "zero_start")
    values = {}
    for variant in variants:
        [record] = run({**FORCED, "variant": variant, "tools": "gsm8k"}, out=variant)
        values[variant] = record.value
        rows = samples(tmp_path / variant)
        if variant == "no_tools":
            assert all("traces" not in row for row in rows)
        elif variant == "oracle_call":
            assert [row["resps"][0][0].rpartition("#### ")[2] for row in rows] == [str(2 * n + 3) for n in range(6)]
            assert all([c["forced"] for c in row["traces"][0]] == ["oracle call"] for row in rows)
        else:
            assert all(len(row["traces"]) == 1 for row in rows)
    [plain] = run(out="plain")
    assert values["no_tools"] == plain.value
    assert [row["resps"] for row in samples(tmp_path / "no_tools")] == [
        row["resps"] for row in samples(tmp_path / "plain")
    ]


def test_a_baseline_beside_the_method_is_the_untouched_model(run: Callable[..., Any], tmp_path: Path) -> None:
    """Section 8: --with_baseline on a task that generates."""
    baseline, method = run({**FORCED, "tools": "gsm8k"}, with_baseline=True)
    assert (baseline.method.name, method.method.name) == ("baseline", "tool_tokens")


# --- acceptance property 19 ---------------------------------------------------------------------------------------------

HOPS = [
    {"question": "How many are 2 pears and 3 pears?", "answer": 5, "calls": [("add", "2, 3")]},
    {"question": "What is minus lg 0.5?", "answer": -0.301, "calls": [{"raw": "-<log>(0.5)=0.301"}]},
    {"question": "A seventh, with all digits?", "answer": 0.142857, "calls": [("divide", "1, 7")]},
    {"question": "2 to the 70th?", "answer": 1180591620717411303424, "calls": [("power", "2, 70")]},
    {"question": "A wrong gold one?", "answer": 8, "calls": [("add", "2, 3"), ("subtract", "5, 4")]},
    {"question": "Brackets?", "answer": 20, "calls": [("multiply", "(2+3), 4")]},
]


@pytest.mark.parametrize(("task", "rounding"), [("one_hop", "paper"), ("multi_hop", "paper"), ("multi_hop", "exact")])
def test_right_calls_reach_the_executors_ceiling(
    run: Callable[..., Any], tmp_path: Path, task: str, rounding: Any
) -> None:
    """Acceptance property 19, on rows written here: oracle_call reaches what ceiling computes from the rows."""
    check_ceiling(run, task, rounding, {"data_folder": write_data(tmp_path, task, HOPS)})


@pytest.mark.parametrize("task", ["one_hop", "multi_hop"])
def test_a_right_call_that_fails_is_no_right_answer(run: Callable[..., Any], tmp_path: Path, task: str) -> None:
    """Acceptance property 19: where the last gold call fails, the result of an earlier one is no answer."""
    rows = [*HOPS, {"question": "6 over nothing?", "answer": 5, "calls": [("add", "2, 3"), ("divide", "6, 0")]}]
    check_ceiling(run, task, "paper", {"data_folder": write_data(tmp_path, task, rows)})


def write_data(tmp_path: Path, task: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write a data folder for a FuncQA task and return it."""
    made = tmp_path / "tool-data"
    made.mkdir()
    lines = []
    for number, row in enumerate(rows):
        calls = [
            call if isinstance(call, dict) else {"tool": call[0], "args": call[1], "result": "?"}
            for call in row["calls"]
        ]
        lines.append(json.dumps({"id": f"made-{number}", **row, "calls": calls}) + "\n")
    (made / f"funcqa_{task}_test.jsonl").write_text("".join(lines), encoding="utf-8")
    texts = {f"funcqa_{task}": {"general": "Q: [QUESTION]\nA:"}}
    (made / "prompts.json").write_text(json.dumps(texts), encoding="utf-8")
    return str(made)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("HARNESS_TOOL_DATA"), reason="HARNESS_TOOL_DATA names no data folder")
@pytest.mark.parametrize("rounding", ["paper", "exact"])
@pytest.mark.parametrize("task", ["one_hop", "multi_hop"])
def test_right_calls_reach_the_executors_ceiling_on_the_published_data(
    run: Callable[..., Any], task: str, rounding: Any
) -> None:
    """Acceptance property 19, on the published FuncQA rows."""
    check_ceiling(run, task, rounding, {"data_folder": _DATA_FOLDER})


_DATA_FOLDER = os.environ.get("HARNESS_TOOL_DATA", "")


def check_ceiling(run: Callable[..., Any], task: str, rounding: Any, metadata: dict[str, Any]) -> None:
    records = run(
        {"variant": "oracle_call", "rounding": rounding},
        tasks=(f"funcqa_{task}",),
        include_path=(),
        metadata=metadata,
    )
    expected = ceiling(data.funcqa(task, metadata["data_folder"]), rounding=rounding)  # type: ignore[arg-type]
    found = {record.metric.name: round(record.value * expected["docs"]) for record in records}
    assert expected["within_0_1_percent"] > 0
    for metric in ("within_0_1_percent", "two_decimals"):
        assert found[metric] == expected[metric], (metric, found, expected)
    assert found["calls_wrong"] == found["calls_missed"] == found["calls_false"] == 0


# --- tool choice ------------------------------------------------------------------------------------------------------------


def choice(run: Callable[..., Any], folder: Path, options: dict[str, Any] | None, **settings: Any) -> list[Any]:
    metadata = {"rows": str(folder / "rows.jsonl"), "holdout": 2, "tools": "gsm8k"}
    include = () if options is not None else (CHOICE_FOLDER,)
    return run(options, tasks=("tool_choice",), include_path=include, metadata=metadata, **settings)


def test_tool_choice_is_asked_about_rows_held_out(run: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """Contract, request type tool_choice: metrics of held-out rows, and an answer for each call in the samples."""
    records = choice(
        run, folder, {"train_file": str(folder / "rows.jsonl"), "holdout": 2, "tools": "gsm8k", "steps": 40}
    )
    values = {record.metric.name: record.value for record in records}
    assert set(values) == {"selection", "recall", "rank_reciprocal", "margin", "false"}
    assert 0 <= values["recall"] <= values["selection"] <= 1
    rows = samples(tmp_path / "out", "tool_choice")
    assert len(rows) == 4


def test_tool_choice_refuses_texts_that_were_trained_on(run: Callable[..., Any], folder: Path) -> None:
    """Brief, leak guard: without a holdout in training the held-out rows of the task are no held-out rows."""
    options = {"train_file": str(folder / "rows.jsonl"), "tools": "gsm8k", "steps": 2}
    with pytest.raises(HarnessError, match="is among the rows that the tools were trained on") as refused:
        choice(run, folder, options)
    assert "holdout and holdout_seed" in str(refused.value)
    with pytest.raises(HarnessError, match="is among the rows that the tools were trained on"):
        choice(run, folder, options | {"holdout": 2, "holdout_seed": 5})


def test_tool_choice_refuses_texts_that_saved_rows_were_trained_on(
    run: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    """Brief, leak guard: rows that come from a file were trained on texts, too."""
    options = {"train_file": str(folder / "rows.jsonl"), "tools": "gsm8k", "steps": 2}
    run(options, out="made")
    [file] = (tmp_path / "made").rglob("tool_rows.safetensors")
    with pytest.raises(HarnessError, match="trained on"):
        choice(run, folder, {"rows_file": str(file), "tools": "gsm8k"})


@pytest.mark.parametrize("variant", ["no_tools", "in_context", "oracle_call"])
def test_tool_choice_without_rows_is_refused_in_a_sentence(run: Callable[..., Any], folder: Path, variant: str) -> None:
    """Brief: wrong combination of variant and task."""
    with pytest.raises(HarnessError, match=f"variant={variant} has no rows"):
        choice(run, folder, {"variant": variant, "tools": "gsm8k"})


def test_tool_choice_with_a_baseline_or_without_a_plugin_is_refused_in_a_sentence(
    run: Callable[..., Any], folder: Path
) -> None:
    """Brief: with_baseline + tool_choice, and no plugin + tool_choice."""
    with pytest.raises(HarnessError, match="--with_baseline asks it, too: leave it out"):
        choice(run, folder, {"tools": "gsm8k"}, with_baseline=True)
    with pytest.raises(HarnessError, match="'tool_choice' requests, which CausalLM cannot answer"):
        choice(run, folder, None)


# --- interruption -----------------------------------------------------------------------------------------------------------

STOPPED = """\
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness import hookimpl
from harness_tool_tokens.method import ToolTokens

passes = [0]


@dataclass(frozen=True)
class Stopped(ToolTokens):
    name: ClassVar[str] = "stopped_tools"

    def apply(self, lm, *, seed, workdir):
        made = super().apply(lm, seed=seed, workdir=workdir)
        switch = Path({switch!r})
        passes[0] = 0

        def count(module, inputs, kwargs):
            passes[0] += 1
            if switch.exists() and passes[0] == int(switch.read_text()):
                raise KeyboardInterrupt

        made.model.register_forward_pre_hook(count, with_kwargs=True)
        return made


Stopped.__doc__ = ToolTokens.__doc__


@hookimpl
def harness_methods():
    return [Stopped]
"""


@pytest.mark.parametrize("options", [{**FORCED, "tools": "gsm8k"}, {"variant": "in_context", "tools": "gsm8k"}])
def test_an_interrupted_run_goes_on_with_its_traces(
    run: Callable[..., Any],
    make_plugin: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
) -> None:
    """Brief, journal: what was answered before Ctrl-C is kept with its traces; the resumed run's samples are the same."""
    import re
    import sys

    switch, module = tmp_path / "switch", f"third_party_stopped_{len(options)}"
    make_plugin("stopped", STOPPED.format(switch=str(switch)), distribution=f"stopped-{len(options)}", module=module)
    settings = {"plugin": "stopped", "method_args": options, "batch_size": 1}
    run(**settings, out="whole")
    passes = sys.modules[module].passes[0]
    switch.write_text(str(passes - 3), encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        run(**settings, out="broken")
    switch.unlink()
    capsys.readouterr()
    run(**settings, out="broken")
    taken = re.search(r"([0-9]+) answers were there from an interrupted run", capsys.readouterr().err)
    assert taken is not None and 1 <= int(taken[1]) < 6
    assert told(tmp_path / "broken") == told(tmp_path / "whole")
    assert all(traces is not None for _, traces in told(tmp_path / "broken"))


# --- tools of a user ----------------------------------------------------------------------------------------------------

MINE = """
import sys, time
from harness_tool_tokens import tool

@tool(description="Hangs.", key="add", examples=["Q: a\\nA: <hang>(1)=1", "Q: b\\nA: <hang>(2)=2"], arity="0+")
def hang(*texts):
    while True:
        time.sleep(0.1)

@tool(description="Prints and raises.", key="multiply", examples=["Q: a\\nA: <loud>(1)=1", "Q: b\\nA: <loud>(2)=2"], arity="0+")
def loud(*texts):
    print('{"text": "forged"}', flush=True)
    raise ValueError("no")
"""


def test_a_run_with_tools_of_a_user_that_misbehave_comes_to_its_end(run: Callable[..., Any], tmp_path: Path) -> None:
    """Section 9, user tools, through a whole run with a forced bias: records and traces are there."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    [record] = run({**FORCED, "tools": str(tmp_path / "mine.py"), "tool_timeout": 0.3}, limit=3)
    assert record.value is not None
    traces: Sequence[Any] = [row["traces"][0] for row in samples(tmp_path / "out")]
    assert all(1 <= len(trace) <= 2 and all(call["error"] for call in trace) for trace in traces)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not JSON", "is no valid JSON"),
        ("[]", "does not map data sets to prompt texts"),
        ('{"sums": {"add": "no slot"}}', "has to hold one [QUESTION]"),
        ('{"sums": {"add": "[QUESTION] [QUESTION]"}}', "has to hold one [QUESTION]"),
        ('{"sums": {"add": 3}}', "does not map data sets to prompt texts"),
        ('{"sums": {"add": "Q: [QUESTION]"}}', ""),
    ],
)
def test_a_wrong_file_of_prompts_is_refused_before_weights_are_loaded(
    tiny_model: Path, tmp_path: Path, content: str, words: str
) -> None:
    """Demand: what can be found without weights is found before they are loaded."""
    rows = [training_row(n, f"Q: {n}+2?\nA: {n}+2=", str(n + 2), ".") for n in range(3)]
    file = tmp_path / "prompts.json"
    file.write_text(content, encoding="utf-8")
    run = Run(
        tasks=("tool_choice",),
        plugin="tool_tokens",
        method_args={"prompts_file": str(file)},
        model_args={"pretrained": str(tiny_model)},
        metadata={"rows": write_lines(tmp_path / "rows.jsonl", rows), "holdout": 1},
        output_path=tmp_path / "out",
    )
    if not words:
        assert list(prepare(run).tasks.tasks) == ["tool_choice"]
        return
    with pytest.raises(HarnessError) as refused:
        prepare(run)
    assert words in str(refused.value) and "\n" not in str(refused.value)
