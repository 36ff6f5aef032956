"""What lm-eval warns of, drops or makes up: the right number or none, a sentence, a note on the record, a mark on the board."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.record import COMPUTED, Record

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]
Task = Callable[..., Path]
MEAN = "{metric: NAME, aggregation: mean, higher_is_better: true}"
FILE = """\
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/NAME.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [METRICS]
metadata: {version: 1.0}
"""
SHOTS = "fewshot_config: {sampler: first_n, samples: [{q: e, a: 1}]}\n"
EXACT = MEAN.replace("NAME", "exact_match")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Return a function that writes a task of generated texts: its documents, its metrics, its code and more lines."""

    def write(name: str, docs: Any = 3, *, metrics: str = EXACT, code: str = "", more: str = "") -> Path:
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        rows = (
            docs
            if isinstance(docs, list)
            else [{"q": f"Customers would ask which of {n}", "a": n} for n in range(docs)]
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        text = FILE.replace("METRICS", metrics).replace("NAME", name).replace("FOLDER", str(folder)) + more
        if code:
            (folder / f"code_{name}.py").write_text(code, encoding="utf-8")
            text = text.replace("CODE", f"code_{name}")
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def ask(cli: Command, tiny_model: Path, tmp_path: Path) -> Command:
    """Return a function that evaluates tasks of the folder, into ``out``."""

    def run(tasks: str, *flags: object, model: Path | None = None) -> Any:
        arguments = ["--model_args", f"pretrained={model or tiny_model}", "--include_path", tmp_path / "tasks"]
        return cli("eval", *arguments, "--tasks", tasks, "--output_path", "out", *flags)

    return run


def by_metric(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{record['task']['name']}/{record['metric']['name']}": record for record in records}


TABLE = """\
def score(doc, results):
    return {"flag": float(doc["a"] % 2), "spread": doc["a"]}


def spread(values):
    return {"low": min(values), "high": max(values)}
"""
ODD = """\
import math
import numpy

def score(doc, results):
    found = {name: doc["a"] for name in ("many", "none", "text", "raises", "leaves", "huge", "truth", "one", "array")}
    return found | {"fine": doc["a"], "words": "some", "doc": 1, "target": 2}

def many(values): return [1, 2]
def none(values): return None
def text(values): return "0.5"
def raises(values): raise ZeroDivisionError("nothing to divide by")
def leaves(values): raise SystemExit(3)
def huge(values): return 10 ** 400
def truth(values): return True
def one(values): return numpy.float32(0.5)
def array(values): return numpy.array([0.25])
"""


def test_a_metric_that_is_no_number_leaves_the_others(ask: Command, task: Task, records: Records) -> None:
    """Case metric_that_is_no_number: ``flag`` is 0.5, ``spread`` is left out, and a sentence says that it is no number."""
    rows = [{"q": f"Say {n}", "a": n} for n in range(6)]
    metrics = f"{MEAN.replace('NAME', 'flag')}, {{metric: spread, aggregation: !function CODE.spread, higher_is_better: true}}"
    task("table", rows, metrics=metrics, code=TABLE, more="process_results: !function CODE.score\n")
    outcome = ask("table")
    assert outcome.code == 0, outcome.err
    assert "metric 'spread' of task 'table' is left out: it is no number but a dict\n" in outcome.err
    [record] = records(Path("out"))
    assert (record["metric"]["name"], record["value"]) == ("flag", 0.5)
    assert record["stderr"] == pytest.approx(0.22360679774997896, rel=1e-12)


def test_odd_metrics_are_left_out_one_by_one_and_said(ask: Command, task: Task, records: Records, cli: Command) -> None:
    """Lists, None, text, what raises or leaves, infinite numbers, fields of the sample file: each said, the others kept."""
    own = ("many", "none", "text", "raises", "leaves", "huge", "truth", "one", "array")
    metrics = ", ".join(
        f"{{metric: {name}, aggregation: !function CODE.{name}, higher_is_better: true}}" for name in own
    )
    metrics += f", {MEAN.replace('NAME', 'fine')}, {MEAN.replace('NAME', 'words')}"
    task("odd", metrics=metrics, code=ODD, more="process_results: !function CODE.score\n")
    outcome = ask("odd")
    assert outcome.code == 1
    for name, why in {
        "many": "it is no number but a list",
        "none": "it is no number but None",
        "text": "it is no number but a str",
        "raises": "its aggregation failed: ZeroDivisionError: nothing to divide by",
        "leaves": "its aggregation failed: SystemExit: 3",
        "huge": "it is no number but a int",
        "words": "its aggregation failed: TypeError",
        "target": "it is called like a field of the sample file",
    }.items():
        assert f"metric '{name}' of task 'odd' is left out: {why}" in outcome.err
    assert outcome.sentence.startswith("harness: metric 'raises' of task 'odd' has no value: its aggregation failed")
    found = {record["metric"]["name"]: record["value"] for record in records(Path("out"))}
    assert found == {"truth": 1.0, "one": 0.5, "array": 0.25, "fine": 1.0}
    assert cli("verify", "out").code == 0


def test_one_of_lm_evals_metrics_that_fails_for_a_document_is_left_out_alone(
    ask: Command, task: Task, records: Records
) -> None:
    """A metric nobody knows, and one whose code raises for an answer, take no other with them."""
    code = "def fails(references, predictions, **_):\n    raise RuntimeError('no such answer')\n"
    fails = "{metric: !function CODE.fails, aggregation: mean, higher_is_better: true}"
    task("several", metrics=f"{EXACT}, {fails}", code=code)
    outcome = ask("several")
    assert outcome.code == 1
    assert (
        "metric 'fails' of task 'several' is left out: it failed for a document: RuntimeError: no such answer"
        in outcome.err
    )
    assert list(by_metric(records(Path("out")))) == ["several/exact_match"]


def test_a_filter_that_fails_leaves_the_other_filters(ask: Command, task: Task, records: Records) -> None:
    filters = (
        "[{name: plain, filter: [{function: take_first}]}, {name: broken, filter: [{function: take_first_k, k: 3}]}]"
    )
    task("filtered", more=f"filter_list: {filters}\n")
    outcome = ask("filtered")
    assert outcome.code == 1
    assert (
        "metric 'every metric (broken)' of task 'filtered' is left out: the filter failed: AssertionError"
        in outcome.err
    )
    [record] = records(Path("out"))
    assert record["metric"]["filter"] == "plain"


def test_a_placeholder_is_no_score(ask: Command, task: Task, records: Records, cli: Command) -> None:
    """Case bypass_is_no_score: no record with a value, and a sentence; ``--predict_only`` is refused with its words."""
    task("answers_only", metrics="{metric: bypass}")
    outcome = ask("answers_only")
    assert outcome.code == 1 and not records(Path("out"))
    said = "bypass stands for answers without one, whatever number lm-eval gives it"
    assert outcome.sentence == f"harness: task 'answers_only' has no score: {said}"
    task("beside", metrics=f"{EXACT}, {{metric: bypass}}")
    outcome = ask("beside")
    assert outcome.code == 0 and "metric 'bypass' of task 'beside' is left out" in outcome.err
    assert list(by_metric(records(Path("out")))) == ["beside/exact_match"]
    refused = ask("beside", "--predict_only")
    assert refused.code == 2 and "have no score (lm-eval's bypass, 999 by definition)" in refused.sentence
    # A record of it that was made elsewhere takes no rank.
    file = next(Path("out").rglob("records_*.jsonl"))
    line = json.loads(file.read_text(encoding="utf-8"))
    line |= {
        "metric": {"name": "bypass", "filter": "none", "higher_is_better": True, "aggregation": "bypass"},
        "value": 999.0,
    }
    del line["digest"], line["key"]
    Path("made.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert "no score: bypass stands for answers without one" in cli("leaderboard", "made.jsonl").out


UNEVEN = """\
def score(doc, results):
    out = {"easy": 1.0}
    if doc["hard"]:
        out["hard"] = float(doc["a"])
    return out
"""


def uneven(task: Task) -> Path:
    """Write two tasks, in one of which one of six documents has ``hard``, in the other all three."""
    metrics, more = (
        f"{MEAN.replace('NAME', 'easy')}, {MEAN.replace('NAME', 'hard')}",
        "process_results: !function CODE.score\n",
    )
    first = [{"q": f"s{n}", "a": 1, "hard": n == 0} for n in range(6)]
    task("uneven_a", first, metrics=metrics, code=UNEVEN, more=more)
    return task(
        "uneven_b", [{"q": f"t{n}", "a": 0, "hard": True} for n in range(3)], metrics=metrics, code=UNEVEN, more=more
    )


def test_a_group_weighs_a_metric_by_the_documents_that_have_it(
    ask: Command, task: Task, records: Records, cli: Command
) -> None:
    """Case group_of_uneven_metrics: ``hard`` of the group is 0.25, over four of nine documents, and ``verify`` says so, too."""
    folder = uneven(task)
    group = "group: NAME\ntask: [MEMBERS]\naggregate_metric_list: [{metric: hard, weight_by_size: true}]\n"
    for name, members in (
        ("weighted", "uneven_a, uneven_b"),
        ("nested", "{group: part, task: [uneven_a]}, {group: more, task: [uneven_b, uneven_a]}"),
    ):
        text = group.replace("NAME", name).replace("MEMBERS", members)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    values = {}
    for name in ("weighted", "nested"):
        outcome = ask(name, "--output_path", f"out-{name}")
        assert outcome.code == 0, outcome.err
        assert outcome.err.count("note on uneven_a: hard is over 1 of 6 documents: the others have none") == 1
        found = by_metric(records(Path(f"out-{name}")))
        values[name] = found[f"{name}/hard"]["value"]
        assert cli("verify", f"out-{name}").code == 0
        results = json.loads(next(Path(f"out-{name}").rglob("results_*.json")).read_text(encoding="utf-8"))
        assert results["results"][name]["hard,none"] == values[name]
    assert values == {"weighted": 0.25, "nested": 0.25}
    assert found["nested/hard"]["counts"]["scored_docs"] == 4 and found["nested/hard"]["counts"]["docs"] == 9
    assert found["uneven_a/hard"]["notes"] == ["hard is over 1 of 6 documents: the others have none"]
    assert not found["uneven_a/easy"]["notes"] and found["uneven_a/easy"]["counts"]["scored_docs"] is None
    # It stands on the board with its mark, and on the terminal.
    assert (
        "† baseline: hard is over 4 of 9 documents: the others have none (nested)"
        in cli("leaderboard", "out-nested").out
    )
    board = cli("leaderboard", "out-nested", "--task", "all").out
    assert (
        "| 0.2500 † |" in board and "* † baseline: hard is over 4 of 9 documents: the others have none (hard)" in board
    )
    cli("leaderboard", "out-nested", "--output", "board.html")
    page = Path("board.html").read_text(encoding="utf-8")
    assert "0.2500 \u2020" in page or "0.2500 \\u2020" in page
    assert "† baseline: hard is over 4 of 9 documents: the others have none." in page
    assert "† nested: hard is over 4 of 9 documents: the others have none" in cli("show", "out-nested").out
    # An edited weight does not follow.
    file = next(path for path in Path("out-nested").rglob("records_*.jsonl") if "uneven_a" in path.name)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["counts"]["scored_docs"] = line["counts"]["scored_docs"] and 6
    edited = [Record.model_validate({n: v for n, v in line.items() if n not in COMPUTED}).to_line() for line in lines]
    file.write_text("\n".join(edited) + "\n", encoding="utf-8")
    assert "its sample file holds hard of 1 documents, the record says 6" in cli("verify", "out-nested").out


def test_of_a_metric_that_a_group_names_twice_the_last_entry_counts(
    ask: Command, task: Task, records: Records, cli: Command
) -> None:
    """One record of each metric and filter, with the weights of its own entry, and ``verify`` agrees."""
    entries = (
        "{metric: easy, weight_by_size: true, filter_list: [none]}",
        "{metric: hard, weight_by_size: true}",
        "{metric: hard, weight_by_size: false, filter_list: none}",
        "{metric: easy, weight_by_size: true}",
    )
    text = f"group: twice\ntask: [uneven_a, uneven_b]\naggregate_metric_list: [{', '.join(entries)}]\n"
    (uneven(task) / "twice.yaml").write_text(text, encoding="utf-8")
    assert ask("twice").code == 0
    found = [record for record in records(Path("out")) if record["task"]["name"] == "twice"]
    ways = [(record["metric"]["name"], record["metric"]["aggregation"], record["value"]) for record in found]
    assert ways == [("easy", "mean_by_size", 1.0), ("hard", "mean_of_tasks", 0.5)]
    assert cli("verify", "out").code == 0


def test_a_group_says_what_its_tasks_do_not_share(ask: Command, task: Task, records: Records, cli: Command) -> None:
    """A metric one task lacks, other shots, other directions, the same documents: each said, and no number made up."""
    flag = "def score(doc, results):\n    return {'flag': float(doc['a'] % 2), 'only': 1.0}\n"
    more = "process_results: !function CODE.score\nnum_fewshot: SHOTS\n" + SHOTS
    both = f"{MEAN.replace('NAME', 'flag')}, {MEAN.replace('NAME', 'only')}"
    folder = task("first", metrics=both, code=flag, more=more.replace("SHOTS", "0"))
    turned = MEAN.replace("NAME", "flag").replace("true", "false")
    task("second", metrics=turned, code=flag.replace(", 'only': 1.0", ""), more=more.replace("SHOTS", "1"))
    metrics = "[{metric: flag}, {metric: only}, {metric: missing}]"
    (folder / "both.yaml").write_text(
        f"group: both\ntask: [first, second]\naggregate_metric_list: {metrics}\n", encoding="utf-8"
    )
    outcome = ask("both")
    assert outcome.code == 1
    assert outcome.sentence == "harness: group 'both' has no missing, because its tasks have none"
    found = by_metric(records(Path("out")))
    whole, only = found["both/flag"], found["both/only"]
    assert whole["settings"]["num_fewshot"] is None and whole["metric"]["higher_is_better"] is None
    assert whole["stderr"] is None
    assert whole["notes"] == [
        "its tasks have 0 and 1 shots",
        "its tasks do not agree on whether higher is better",
        "its tasks ask the same documents, so their errors do not add up to one: it has none",
    ]
    assert (only["value"], only["task"]["members"]) == (1.0, ["first"])
    assert only["notes"] == ["only is over 1 of 2 tasks: second has none"]
    assert only["settings"]["num_fewshot"] == 0
    assert cli("verify", "out").code == 0


def test_repeated_answers_are_counted_and_the_record_follows(
    ask: Command, task: Task, records: Records, cli: Command
) -> None:
    """Case repeats_fail_verify: 3 documents, 15 requests, exit status 0; of five answers one was scored, and that is said."""
    drawn = "generation_kwargs: {until: ['\\n'], max_gen_toks: 8, do_sample: true, temperature: 1.5}\nrepeats: 5\n"
    task("drawn", more=drawn)
    voted = "filter_list: [{name: vote, filter: [{function: majority_vote}, {function: take_first}]}]\nrepeats: 3\n"
    task("voted", more=voted)
    outcome = ask("drawn,voted")
    assert outcome.code == 0, outcome.err
    note = "5 answers were drawn for each document, one was scored: the first"
    assert f"note on drawn: {note}\n" in outcome.err
    first, second = records(Path("out"))
    assert (first["counts"]["docs"], first["counts"]["requests"], first["task"]["drawn"]) == (3, 15, True)
    assert 1 < first["counts"]["distinct_answers"] <= 15
    assert first["notes"] == [note]
    assert (second["counts"]["requests"], second["task"]["drawn"]) == (9, False)
    assert second["notes"] == ["the 3 answers to a document are the same 3 times: they are not drawn at random"]
    verified = cli("verify", "out")
    assert (verified.code, verified.out.strip()) == (0, "2 records: 2 follow from their samples")


REFUSES = "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPS = "{% if m['role'] != 'system' %}"
TAKES = ""


def with_template(model: Path, folder: Path, inside: str) -> Path:
    """Copy a model and give it a chat template."""
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = "{% endif %}" if inside == DROPS else ""
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{inside}[{{{{ m['role'] }}}}] {{{{ m['content'] }}}}\n{end}{{% endfor %}}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("inside", [REFUSES, DROPS], ids=["refuses", "drops"])
def test_a_system_message_that_the_template_leaves_out_is_said_and_not_recorded(
    inside: str, ask: Command, task: Task, records: Records, tiny_model: Path, tmp_path: Path
) -> None:
    """Case system_message_dropped: neither text is in the prompt, a sentence says so, the record has no system instruction."""
    task("asked", 1, more="description: 'Be brief.'\n")
    model = with_template(tiny_model, tmp_path / "templated", inside)
    keys = set()
    for text in ("You are a clock.", "You are a bird."):
        outcome = ask("asked", "--apply_chat_template", "--system_instruction", text, model=model)
        assert outcome.code == 0, outcome.err
        note = "the chat template takes no system message: --system_instruction and the description of the task were left out"
        assert f"note on asked: {note}\n" in outcome.err
        [record] = records(Path("out"))
        assert record["settings"]["system_instruction"] is None and record["notes"] == [note]
        keys.add(record["key"])
    assert len(keys) == 1
    row = json.loads(next(Path("out").rglob("samples_*.jsonl")).read_text(encoding="utf-8"))
    assert row["arguments"]["gen_args_0"]["arg_0"].startswith("[user] Customers")


def test_a_system_message_that_the_template_takes_stays(
    ask: Command, task: Task, records: Records, tiny_model: Path, tmp_path: Path
) -> None:
    task("asked", 1, more="description: 'Be brief.'\n")
    model = with_template(tiny_model, tmp_path / "templated", TAKES)
    assert ask("asked", "--apply_chat_template", "--system_instruction", "You are a clock.", model=model).code == 0
    [record] = records(Path("out"))
    assert record["settings"]["system_instruction"] == "You are a clock." and not record["notes"]
    row = json.loads(next(Path("out").rglob("samples_*.jsonl")).read_text(encoding="utf-8"))
    assert row["arguments"]["gen_args_0"]["arg_0"].startswith(
        "[system] You are a clock.\n\nBe brief.\n[user] Customers"
    )


def test_shots_as_turns_are_refused_where_the_template_takes_one_question_only(
    ask: Command, task: Task, records: Records, tiny_model: Path, tmp_path: Path
) -> None:
    task("asked", 1, more=SHOTS)
    only_last = "{% if loop.last %}"
    model = with_template(tiny_model, tmp_path / "templated", TAKES)
    config = model / "chat_template.jinja"
    template = config.read_text(encoding="utf-8").replace("[{{ m['role'] }}", f"{only_last}[{{{{ m['role'] }}}}")
    config.write_text(template.replace("{% endfor %}", "{% endif %}{% endfor %}"), encoding="utf-8")
    outcome = ask("asked", "--apply_chat_template", "--num_fewshot", 1, model=model)
    assert outcome.code == 2
    assert "takes no conversation of several turns" in outcome.sentence
    assert "give --fewshot_as_multiturn false" in outcome.sentence
    assert (
        ask("asked", "--apply_chat_template", "--num_fewshot", 1, "--fewshot_as_multiturn", "false", model=model).code
        == 0
    )


def test_shots_that_a_task_does_not_take_are_said(ask: Command, task: Task, records: Records) -> None:
    task("fixed", 1, more="num_fewshot: 0\n")
    assert ask("fixed", "--num_fewshot", 2).code == 0
    [record] = records(Path("out"))
    assert record["settings"]["num_fewshot"] == 0
    assert record["notes"] == ["the task fixes 0 shots: --num_fewshot 2 was left aside"]


CHOICES = """\
import warnings

import numpy


def score(doc, results):
    return {"acc": 0.5, "own": 1.0}


def spread(values):
    warnings.warn("only a few values", stacklevel=2)
    return float(numpy.mean(values))
"""


def test_what_is_warned_of_on_the_way_to_a_number_is_noted(ask: Command, task: Task, records: Records) -> None:
    """A warning of an aggregation, and a metric without one: notes, the same in every run."""
    metrics = "{metric: acc, aggregation: !function CODE.spread, higher_is_better: true}"
    task("warns", metrics=metrics, code=CHOICES, more="process_results: !function CODE.score\n")
    notes = []
    for _ in range(2):
        outcome = ask("warns")
        assert outcome.code == 0, outcome.err
        notes.append({name: record["notes"] for name, record in by_metric(records(Path("out"))).items()})
    assert notes[0] == notes[1] == {
        "warns/acc": ["on the way to acc: only a few values"],
        "warns/own": ["the task says no way from its documents to own; the mean was taken, as lm-eval does"],
    }  # fmt: skip
    assert by_metric(records(Path("out")))["warns/own"]["metric"]["aggregation"] == "mean"


def test_the_template_that_is_named_is_used(ask: Command, task: Task, tiny_model: Path, tmp_path: Path) -> None:
    """lm-eval writes the name down and renders the default one."""
    import shutil

    from transformers import AutoTokenizer

    task("asked", 1)
    model = tmp_path / "two"
    shutil.copytree(tiny_model, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    end = "{{ messages[-1]['content'] }}"
    tokenizer.chat_template = {"default": f"[default] {end}", "short": f"[short] {end}"}
    tokenizer.save_pretrained(model)
    assert ask("asked", "--apply_chat_template", "short", model=model).code == 0
    row = json.loads(next(Path("out").rglob("samples_*.jsonl")).read_text(encoding="utf-8"))
    assert row["arguments"]["gen_args_0"]["arg_0"].startswith("[short] Customers")


@pytest.mark.parametrize(
    ("inside", "flags"),
    [
        ("", []),
        (TAKES, ["--system_instruction", "You are a clock."]),
        (REFUSES, ["--system_instruction", "You are a clock."]),
    ],
    ids=["plain", "takes", "refuses"],
)
def test_records_of_prompts_as_chat_are_found_without_reading_weights(
    inside: str, flags: list[str], ask: Command, task: Task, tiny_model: Path, tmp_path: Path
) -> None:
    """To see what would be asked, the template is all it takes: another one asks anew."""
    task("asked", 1)
    model = with_template(tiny_model, tmp_path / "templated", inside)
    words = ["asked", "--apply_chat_template", *flags]
    assert ask(*words, model=model).code == 0
    again = ask(*words, "--shard", "1/2", model=model)
    assert again.code == 0 and "shard 1 of 2 asks nothing" in again.err, again.err
    assert "loading" not in again.err
    other = with_template(tiny_model, tmp_path / "other" / "templated", f"Well. {inside}")
    anew = ask(*words, "--shard", "1/2", model=other)
    assert anew.code == 0 and "asks nothing" not in anew.err and "loading" in anew.err


def test_a_task_that_runs_generated_code_is_refused_before_weights_are_loaded(ask: Command, task: Task) -> None:
    task("runs_code", more="unsafe_code: true\n")
    refused = ask("runs_code")
    assert refused.code == 2 and refused.sentence.endswith("allow it with --confirm_run_unsafe_code")
    assert "loading" not in refused.err
