"""What the addition task file calls: its data and its metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness_tasks.addition.generate import Part, Question
from harness_tasks.addition.generate import questions as draw_questions
from harness_tasks.draws import FEWSHOT_SEED_SHIFT, whole_number

if TYPE_CHECKING:
    from datasets import Dataset

SHOTS = 20


def make(*, seed: int, questions: int, **_: Any) -> dict[str, Dataset]:
    """Return the splits ``test`` and ``fewshot`` (20 sums to train on, from another seed), one row a question.

    Args:
        seed, questions: from the task's metadata, where ``--metadata`` can change them.
        _: the rest of the metadata (version, source, what other tasks read), which lm-eval hands over too.

    Raises:
        HarnessError: ``seed`` is no whole number, or ``questions`` none of 1 or more.
    """
    from datasets import Dataset

    whole_number("questions in the task's metadata", questions, at_least=1)
    whole_number("seed in the task's metadata", seed)

    def rows(count: int, seed: int, part: Part) -> list[Question]:
        return list(draw_questions(count, seed=seed, part=part))

    return {
        "test": Dataset.from_list(rows(questions, seed, "test")),
        "fewshot": Dataset.from_list(rows(SHOTS, seed + FEWSHOT_SEED_SHIFT, "train")),
    }


def score(doc: Question, results: list[str]) -> dict[str, float]:
    """Return ``exact_match``: 1 if the text up to the next ``$``, without space around it, is the answer, else 0.

    The digits must stand between ``=`` and ``$``: 730 of the 900,000 questions already contain their answer, so
    searching question and reply would count hits that nobody computed.
    """
    return {"exact_match": float(results[0].partition("$")[0].strip() == doc["answer"])}
