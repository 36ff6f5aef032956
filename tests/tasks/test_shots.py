"""Few-shot examples are other questions than the one that is asked, and as many as were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.records import samples
from harness.run.questions import build
from harness.run.run import Run
from harness.tasks import shots
from harness.tasks.finding import load
from harness.tasks.shots import keep_own_out

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]

TASK = """\
task: bells
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, train: train.jsonl}}
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{c}}"
doc_to_target: "{{a}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
SAMPLERS = """\
from lm_eval.api.samplers import ContextSampler


def bell(number):
    return {"q": f"Which bell number {number} rings?", "c": ["red", "blue"], "a": number % 2}


def given():
    return [bell(0), bell(1), bell(5)]


def upper(docs):
    return docs.map(lambda doc: {"seen": 1})


class Last(ContextSampler):
    def sample(self, n, eval_doc=None):
        return self.df[-n:]


class Told(ContextSampler):
    def sample(self, n, eval_doc=None, **_):
        return [doc for doc in self.df if doc != eval_doc][:n]


class Stubborn(ContextSampler):
    def sample(self, n, eval_doc=None, **_):
        return given()[:n]


class Lazy(ContextSampler):
    def sample(self, n, eval_doc=None, **_):
        return [doc for doc in self.df if doc != eval_doc][:1]


class Counting(ContextSampler):
    asked = 0

    def sample(self, n, eval_doc=None, **_):
        self.asked += 1
        return [bell(10 * self.asked + shot) for shot in range(n)]


class Raising(ContextSampler):
    def sample(self, n, eval_doc=None, **_):
        raise NotImplementedError("later")
"""
DRAWN = "fewshot_config: {{sampler: !function samplers.{}}}\ntest_split: test\n"


def bell(number: int, **more: Any) -> dict[str, Any]:
    return {"q": f"Which bell number {number} rings?", "c": ["red", "blue"], "a": number % 2, **more}


def write(more: str, *, test: list[dict[str, Any]], train: list[dict[str, Any]] = ()) -> None:  # type: ignore[assignment]
    """Write the task and its data into the working folder."""
    Path("bells.yaml").write_text(TASK + more, encoding="utf-8")
    Path("samplers.py").write_text(SAMPLERS, encoding="utf-8")
    for name, rows in {"test": test, "train": train or [bell(9)]}.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prompts(number: int) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Return question and shots of every prompt, in order, and the notes."""
    task = load(["bells.yaml"], []).tasks["bells"]
    run = Run(tasks=("bells",), num_fewshot=number)
    notes = keep_own_out(task, number, dict(enumerate(task.eval_docs)), seed=run.seeds[3])
    build(task, run, None)
    asked = [one.args[0].split("\n\n") for one in task.instances if one.idx == 0]
    return [(parts[-1], parts[:-1]) for parts in asked], notes


def test_a_document_is_not_among_its_own_shots(evaluate: Command) -> None:
    """Case own_answer_among_the_shots: with three documents and two shots, the two shots are the two other documents."""
    write("test_split: test\n", test=[bell(0), bell(1), bell(2)])
    outcome = evaluate("--include_path", ".", "--num_fewshot", 2, tasks="bells")
    assert outcome.code == 0, outcome.err
    [file] = Path("out").rglob("samples_*.jsonl*")
    answered = {f"Which bell number {number} rings? {['red', 'blue'][number % 2]}" for number in range(3)}
    for row in samples.rows(file):
        parts = row["arguments"]["gen_args_0"]["arg_0"].split("\n\n")
        assert parts[-1] == row["doc"]["q"]
        assert set(parts[:-1]) == {text for text in answered if not text.startswith(row["doc"]["q"])}

    for number in (3, 9):
        outcome = evaluate("--include_path", ".", "--num_fewshot", number, tasks="bells")
        assert (outcome.code, outcome.sentence) == (
            2,
            f"harness: task 'bells': {number} shots are asked for, 2 other documents are there, in split 'test'; ask for "
            "fewer with --num_fewshot, or name another split as fewshot_split",
        )
        assert "loading tiny" not in outcome.err


def test_as_many_shots_as_documents_are_told_before_weights(evaluate: Command) -> None:
    """Case sentences_for_task_files: three shots of three documents, where the one that is asked does not count."""
    write("test_split: test\nfewshot_split: test\nnum_fewshot: 3\n", test=[bell(0), bell(1), bell(2)])
    outcome = evaluate("--include_path", ".", "--limit", 1, tasks="bells")
    assert "task 'bells': 3 shots are asked for, 2 other documents are there" in outcome.sentence
    assert (outcome.code, "loading tiny" in outcome.err) == (2, False)


@pytest.mark.parametrize(
    "more",
    [
        "test_split: test\n",
        "test_split: test\nfewshot_split: test\n",
        "validation_split: test\n",
        "validation_split: test\nfewshot_split: test\n",
        "test_split: test\nfewshot_config: {split: test}\n",
        "test_split: test\nfewshot_config: {sampler: first_n}\n",
        "test_split: test\nfewshot_split: test\nfewshot_config: {sampler: first_n}\n",
        "test_split: test\nfewshot_split: test\nfewshot_config: {process_docs: !function samplers.upper}\n",
        "test_split: test\nfewshot_split: test\nfewshot_config: {doc_to_text: 'Say: {{q}}'}\n",
        *(DRAWN.format(sampler) for sampler in ("Last", "Told")),
    ],
)
def test_the_other_documents_are_the_shots_wherever_they_are_drawn(more: str) -> None:
    write(more, test=[bell(0), bell(1), bell(2)])
    asked, notes = prompts(2)
    assert notes == [] and len(asked) == 3
    for number, (question, examples) in enumerate(asked):
        assert question == bell(number)["q"]
        others = {bell(other)["q"] for other in range(3) if other != number}
        assert {example.removeprefix("Say: ").partition("?")[0] + "?" for example in examples} == others


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("test_split: test\ntraining_split: train\n", "split 'train'"),
        ("test_split: test\nfewshot_split: train\nfewshot_config: {sampler: first_n}\n", "split 'train'"),
        ("test_split: test\nfewshot_config: {samples: !function samplers.given}\n", "the few-shot samples"),
        (
            "test_split: test\nfewshot_config:\n  samples:\n" + "".join(f"    - {bell(n)}\n" for n in (0, 1, 5)),
            "the few-shot samples",
        ),
    ],
)
def test_a_question_of_the_test_split_that_stands_in_the_other_data_is_told_and_left_out(more: str, where: str) -> None:
    # Equal in question and answer, not as rows: other columns tell them apart.
    write(more, test=[bell(n, row="test") for n in (0, 1, 2)], train=[bell(n, row="train") for n in (0, 1, 5)])
    asked, notes = prompts(2)
    assert notes == [
        f"2 of 3 documents asked stand in {where} as well, where the shots are drawn: none is among its own shots, but the "
        "data are not apart"
    ]
    assert all(len(examples) == 2 and not any(question in text for text in examples) for question, examples in asked)


def test_shots_that_were_right_stay_as_lm_eval_draws_them() -> None:
    write("test_split: test\ntraining_split: train\n", test=[bell(0), bell(1)], train=[bell(n) for n in range(5, 12)])
    task = load(["bells.yaml"], []).tasks["bells"]
    build(task, Run(tasks=("bells",), num_fewshot=3), None)
    drawn = [one.args[0] for one in task.instances if one.idx == 0]
    asked, notes = prompts(3)
    assert ["\n\n".join([*examples, question]) for question, examples in asked] == drawn and notes == []

    # Where every document asks alike, as beside a picture, no text is the question; equal ones are left out all the same.
    alike = "test_split: test\ntraining_split: train\ndoc_to_text: 'Which?'\n"
    write(alike, test=[bell(0), bell(1)], train=[bell(n) for n in range(5, 12)])
    asked, notes = prompts(3)
    assert [len(examples) for _, examples in asked] == [3, 3] and notes == []


@pytest.mark.parametrize(
    ("more", "test", "number", "sentence"),
    [
        (
            "test_split: test\n",
            [bell(0), bell(0, row=2), bell(2)],
            2,
            "2 shots are asked for, 1 other document is there for document 0",
        ),
        ("test_split: test\n", [bell(0)], 1, "1 shot is asked for, no other document is there, in split 'test'"),
        (
            "test_split: test\ntraining_split: train\n",
            [bell(0)],
            2,
            "2 shots are asked for, 1 document is there, in split",
        ),
        (
            "test_split: test\nfewshot_config: {samples: !function samplers.given}\n",
            [bell(0), bell(7)],
            3,
            "3 shots are asked for, 2 other documents are there for document 0, in fewshot_config.samples",
        ),
        (DRAWN.format("Stubborn"), [bell(0)], 1, "its few-shot sampler gives a document its own question, answered"),
        (
            DRAWN.format("Raising"),
            [bell(0)],
            1,
            "its few-shot sampler fails for document 0: NotImplementedError: later",
        ),
    ],
)
def test_too_few_others_are_one_sentence(more: str, test: list[dict[str, Any]], number: int, sentence: str) -> None:
    write(more, test=test)
    with pytest.raises(HarnessError) as caught:
        prompts(number)
    assert f"task 'bells': {sentence}" in str(caught.value)


def test_a_sampler_of_the_tasks_own_is_tried_on_a_copy_and_may_give_fewer() -> None:
    write(DRAWN.format("Counting"), test=[bell(0), bell(1)])
    asked, _ = prompts(1)
    assert [examples[0].split()[3] for _, examples in asked] == ["10", "20"]

    write(DRAWN.format("Lazy"), test=[bell(0), bell(1), bell(2)])
    asked, notes = prompts(2)
    assert [len(examples) for _, examples in asked] == [1, 1, 1]
    assert notes == [
        "3 of 3 documents have fewer shots than the 2 asked for: the task's own sampler gives no more",
    ]


def test_of_many_few_shot_documents_only_those_drawn_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots, "MOST_COMPARED", 2)
    write("test_split: test\nfewshot_config: {fewshot_indices: [0]}\n", test=[bell(0), bell(1), bell(2)])
    asked, notes = prompts(2)
    assert all(not any(question in text for text in examples) for question, examples in asked)
    assert notes == ["lm-eval reads no fewshot_config.fewshot_indices: the shots are drawn from all few-shot documents"]
