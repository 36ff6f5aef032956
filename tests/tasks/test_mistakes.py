"""Mistakes in task files and their data are one sentence with file and document, before weights are loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import HarnessError
from harness.tasks.documents import check_documents
from harness.tasks.finding import load
from harness.tasks.mistakes import check_task

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]

COMMON: dict[str, Any] = {
    "task": "flawed",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "d.jsonl"}},
    "test_split": "test",
    "doc_to_text": "{{q}}",
    "doc_to_target": "{{a}}",
    "metadata": {"version": 1.0},
}
WRITE = COMMON | {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOOSE = COMMON | {
    "output_type": "multiple_choice",
    "doc_to_choice": "{{c}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
FUNCTIONS = """\
def none(docs):
    return docs.filter(lambda doc: False)


def listed(docs):
    return list(docs)


def nothing(*_, **__):
    return None
"""
GOOD: dict[str, Any] = {"q": "one?", "c": ["red", "blue"], "a": 0}
TEXT = {"q": "The shop", "a": "x"}


def metric(name: str, aggregation: str = "mean") -> dict[str, Any]:
    return {"metric_list": [{"metric": name, "aggregation": aggregation, "higher_is_better": True}]}


def write(config: dict[str, Any], rows: list[Any] | bytes) -> None:
    """Write ``flawed.yaml`` and its data into the working folder; values that begin with ! are YAML tags."""
    text = yaml.safe_dump({key: value for key, value in config.items() if value is not None})
    Path("flawed.yaml").write_text(re.sub(r"'(!function [\w.]+)'", r"\1", text), encoding="utf-8")
    lines = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
    Path("d.jsonl").write_bytes(lines)
    Path("u.py").write_text(FUNCTIONS, encoding="utf-8")


def notes() -> list[str]:
    """Load the task and check it as a run does, and return what is to be told."""
    [task] = load(["flawed.yaml"], []).tasks.values()
    check_task(task)
    return check_documents(task, dict(enumerate(task.eval_docs)))


@pytest.mark.parametrize(
    ("config", "rows", "sentence"),
    [
        (CHOOSE, [{"q": "Is it noon?", "c": ["yes", ""], "a": 0}], "document 0 has an empty choice, number 1"),
        (
            WRITE | {"dataset_kwargs": {"data_files": "d.jsonl"}},
            [TEXT],
            "the data has the split train; test_split is 'test'",
        ),
        (WRITE | {"process_docs": "!function u.none"}, [TEXT], "no documents are left after process_docs, of 1"),
    ],
)
def test_mistakes_are_told_in_the_words_of_the_file(
    config: dict[str, Any], rows: list[Any], sentence: str, evaluate: Command
) -> None:
    """Case sentences_for_task_files: an empty choice, a split that is not there, no documents: one sentence each."""
    write(config, rows)
    outcome = evaluate("--include_path", ".", tasks="flawed")
    assert outcome.code == 2
    assert outcome.sentence == (
        f"harness: task 'flawed' could not be loaded: {sentence} ({Path.cwd() / 'flawed.yaml'})"
    )
    assert "loading tiny" not in outcome.err


@pytest.mark.parametrize(
    ("config", "rows", "sentence"),
    [
        # Choices and answers.
        (CHOOSE, [GOOD, GOOD | {"c": ["red", ""]}], "document 1 has an empty choice, number 1"),
        (CHOOSE, [GOOD, GOOD | {"c": ["red"]}], "document 1 has only one choice, which is always right"),
        (CHOOSE, [GOOD | {"c": ["red", "red"]}], "document 0 has choices that are all equal"),
        (CHOOSE, [GOOD, GOOD | {"c": []}], "document 1 has no choices"),
        (CHOOSE, [GOOD, GOOD | {"c": ["red", None]}], "document 1 has the choice None (NoneType), which is no text"),
        (CHOOSE, [GOOD | {"c": [1, 2]}], "document 0 has the choice 1 (int), which is no text; write choices as text"),
        (CHOOSE, [GOOD | {"c": ["2020-01-01", "2021-01-01"]}], "document 0 has [datetime.datetime(2020, 1, 1"),
        (CHOOSE, [GOOD, GOOD | {"a": 2}], "document 1 has the answer 2, but 2 choices, counted from 0"),
        (CHOOSE, [GOOD | {"a": 5}], "document 0 has the answer 5, but 2 choices, counted from 0"),
        (CHOOSE, [GOOD, GOOD | {"a": -100}], "document 1 has the answer '-100', which is none of its choices"),
        (
            CHOOSE,
            [GOOD | {"a": "red"}, GOOD | {"a": "green"}],
            "document 1 has the answer 'green', which is none of its",
        ),
        (CHOOSE, [GOOD, GOOD | {"a": 0.5}], "document 0 has the answer '0.0', which is none of its choices"),
        (CHOOSE | {"doc_to_target": "a"}, [GOOD, GOOD | {"a": 0.5}], "document 0 has 0.0 (float) as its answer"),
        (CHOOSE, [GOOD, GOOD | {"q": None}], "document 1 has nothing where doc_to_text takes its text from"),
        (CHOOSE | {"doc_to_text": "q"}, [GOOD, GOOD | {"q": None}], "document 1 has None (NoneType) from doc_to_text"),
        # Fields.
        (
            WRITE | {"doc_to_text": "{{question}}"},
            [TEXT],
            "document 0 fails in doc_to_text: 'question' is undefined; the do",
        ),
        (
            WRITE | {"doc_to_target": "{{b}}"},
            [TEXT],
            "document 0 fails in doc_to_target: 'b' is undefined; the document has",
        ),
        (
            WRITE | {"doc_to_text": "question"},
            [TEXT],
            "doc_to_text is 'question', but the documents have q, a; for that",
        ),
        (CHOOSE | {"doc_to_choice": "choices"}, [GOOD], "doc_to_choice is 'choices', but the documents have q, c, a"),
        (WRITE | {"doc_to_text": "{{q"}, [TEXT], "document 0 fails in doc_to_text: unexpected end of template"),
        (WRITE | {"doc_to_text": "!function u.nothing"}, [TEXT], "document 0 has None (NoneType) from doc_to_text"),
        (WRITE | {"doc_to_target": None}, [TEXT], "doc_to_target is missing"),
        (CHOOSE | {"doc_to_choice": None}, [GOOD], "output_type is multiple_choice, and doc_to_choice is missing"),
        # Data.
        (
            WRITE | {"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}},
            [TEXT],
            "there is no data file 'gone.jsonl'; a",
        ),
        (WRITE, b'{"q": "s", "a": "x"}\n{"q": \n', "data file 'd.jsonl' has no valid JSON in line 2"),
        (WRITE, b'{"q": "s", "a": "x"}\n{"q": "caf\xe9", "a": "x"}\n', "data file 'd.jsonl' is no UTF-8 in line 2"),
        (WRITE, b"", "data file 'd.jsonl' is empty"),
        (WRITE | {"fewshot_split": "dev"}, [TEXT], "the data has the split test; fewshot_split is 'dev'"),
        (WRITE | {"training_split": "train"}, [TEXT], "the data has the split test; training_split is 'train'"),
        (WRITE | {"test_split": None}, [TEXT], "it names neither test_split nor validation_split"),
        (WRITE | {"dataset_path": None}, [TEXT], "it has neither dataset_path nor custom_dataset"),
        (
            WRITE | {"process_docs": "!function u.listed"},
            [TEXT],
            "process_docs returns list, where a datasets.Dataset is due",
        ),
        (
            WRITE | {"dataset_path": None, "dataset_kwargs": None, "custom_dataset": "!function u.nothing"},
            [TEXT],
            "its data are NoneType, where a mapping from names of splits to data sets is due",
        ),
        # Words of lm-eval's.
        (WRITE | {"output_type": "generate"}, [TEXT], "output_type is 'generate'; did you mean 'generate_until'?"),
        (WRITE | metric("exactmatch"), [TEXT], "no metric is called 'exactmatch'; did you mean 'exact_match'?"),
        (WRITE | metric("exact_match", "avg"), [TEXT], "no aggregation is called 'avg'"),
        (WRITE | metric("acc"), [TEXT], "metric 'acc' needs log-likelihoods, but output_type is generate_until"),
        (
            CHOOSE | metric("bleu"),
            [GOOD],
            "metric 'bleu' is not computed where output_type is multiple_choice; there are acc",
        ),
        (
            WRITE | {"metric_list": ["exact_match"]},
            [TEXT],
            "metric_list has to be a list of mappings, each with 'metric'",
        ),
        (
            WRITE | {"filter_list": [{"name": "f", "filter": [{"function": "regx"}]}]},
            [TEXT],
            "no filter function is called",
        ),
        (
            WRITE | {"filter_list": [{"name": "f"}]},
            [TEXT],
            "filter_list has to be a list of mappings, each with 'name'",
        ),
        (
            WRITE | {"filter_list": [{"name": "f", "filter": [{"function": "regex", "regex_pattern": "("}]}]},
            [TEXT],
            "filter 'f' cannot be made: error: missing )",
        ),
        (
            WRITE | {"doc_to_answer": "x"},
            [TEXT],
            "the key 'doc_to_answer', which lm-eval does not know; did you mean 'doc_to",
        ),
        (
            WRITE | {"fewshot_config": {"smplr": "x"}},
            [TEXT],
            "fewshot_config has the key 'smplr', which lm-eval does not kn",
        ),
        (
            WRITE | {"fewshot_config": {"sampler": "last_n"}},
            [TEXT],
            "no few-shot sampler is called 'last_n'; did you mean",
        ),
        (WRITE | {"fewshot_config": {"samples": "x"}}, [TEXT], "fewshot_config.samples has to be a list of documents"),
        (WRITE | {"num_fewshot": "two"}, [TEXT], "num_fewshot is two; give a whole number of 0 or more"),
        (WRITE | {"num_fewshot": -1}, [TEXT], "num_fewshot is -1; give a whole number of 0 or more"),
        (WRITE | {"repeats": "x"}, [TEXT], "repeats is x; give a whole number of 1 or more"),
        (WRITE | {"generation_kwargs": "until"}, [TEXT], "generation_kwargs is until, where a mapping is due"),
        (WRITE | {"generation_kwargs": ["until"]}, [TEXT], "generation_kwargs is ['until'], where a mapping is due"),
        (WRITE | {"dataset_kwargs": ["x"]}, [TEXT], "dataset_kwargs is ['x'], where a mapping is due"),
        (WRITE | {"fewshot_config": ["first_n"]}, [TEXT], "fewshot_config is ['first_n'], where a mapping is due"),
        (WRITE | {"test_split": ["test"]}, [TEXT], "test_split is ['test'], where the name of one split is due"),
        (WRITE | {"process_docs": "clean"}, [TEXT], "process_docs is clean, where a function (!function FILE.NAME) is"),
        (WRITE | {"process_results": "score"}, [TEXT], "process_results is score, where a function (!function FILE"),
        (WRITE | {"description": 5}, [TEXT], "description is 5, where text is due"),
        (WRITE | {"target_delimiter": 5}, [TEXT], "target_delimiter is 5, where text is due"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_document(config: dict[str, Any], rows: Any, sentence: str) -> None:
    write(config, rows)
    with pytest.raises(HarnessError) as caught:
        notes()
    assert sentence in str(caught.value)
    assert "flawed.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "rows", "told"),
    [
        (
            WRITE,
            [TEXT | {"a": "2020-01-01"}, TEXT | {"a": "2021-05-01"}],
            "the column 'a' was read as dates, since all its",
        ),
        (
            WRITE,
            [TEXT, TEXT | {"a": None}, TEXT | {"a": None}],
            "document 1 has no target: 'None' is the right answer, and so",
        ),
        (
            WRITE | {"doc_to_target": "a"},
            [TEXT | {"a": {"b": 1}}],
            "document 0 has a target that is neither text nor a number",
        ),
        (
            WRITE | {"doc_to_target": "a"},
            [TEXT | {"a": ["x"]}, TEXT | {"a": []}],
            "document 1 has an empty list as its target",
        ),
        (WRITE, [TEXT], None),
        (CHOOSE, [GOOD], None),
        (CHOOSE | {"doc_to_text": "{{ 'Which' }}"}, [GOOD], None),
        (CHOOSE | {"doc_to_target": "{{c[a]}}"}, [GOOD], None),
        (WRITE | {"doc_to_target": "a"}, [TEXT | {"a": 3}], None),
    ],
)
def test_a_target_that_is_neither_text_nor_number_is_a_note(
    config: dict[str, Any], rows: Any, told: str | None
) -> None:
    write(config, rows)
    found = notes()
    assert len(found) == (told is not None)
    assert all(note.startswith(str(told)) for note in found)


def test_a_task_that_lies_in_the_working_folder_is_told_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.tasks import finding

    monkeypatch.setattr(
        finding, "_remembered_names", lambda: frozenset({"arc_easy"})
    )  # lm-eval's are known from a run before
    Path("sub").mkdir()
    for file, name in {
        "flawed.yaml": "flawed",
        "sub/deep.yaml": "deep",
        "other.yml": "short",
        "called.yaml": "else",
    }.items():
        Path(file).write_text(yaml.safe_dump(WRITE | {"task": name}), encoding="utf-8")
    Path("broken.yaml").write_text("task: [\n", encoding="utf-8")
    for name, told in {
        "flawed": "flawed.yaml defines it: add --include_path .",
        "deep": "sub/deep.yaml defines it: add --include_path sub",
        "short": "other.yml defines 'short': give the file, --tasks other.yml",
        "called": "called.yaml defines 'else': add --include_path .",
        "broken": "task file broken.yaml does not parse (line 2, column 1)",
    }.items():
        with pytest.raises(HarnessError) as caught:
            load([name], [])
        assert str(caught.value).startswith(f"no task is called '{name}'; {told}")
