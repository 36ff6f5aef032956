"""What the LangGame task files call: their data and their metrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness_tasks.draws import FEWSHOT_SEED_SHIFT, whole_number
from harness_tasks.langgame.generate import Clue, Question
from harness_tasks.langgame.generate import questions as draw_questions
from harness_tasks.scores import above_chance

if TYPE_CHECKING:
    from datasets import Dataset

SHOTS = 20


def make(*, question_type: str, seed: int, questions: int, clue_length: Clue = "any", **_: Any) -> dict[str, Dataset]:
    """Return the splits ``test`` and ``fewshot`` (20 questions from another seed), one row a question.

    Args:
        question_type: one of ``generate.TYPES``, from the task file.
        seed, questions: from the task's metadata, where ``--metadata`` can change them.
        clue_length: ``long`` for the out-of-distribution tasks.
        _: the rest of the metadata (version, source, what other tasks read), which lm-eval hands over too.

    Raises:
        HarnessError: ``seed`` is no whole number, or ``questions`` none of 1 or more.
    """
    from datasets import Dataset

    whole_number("questions in the task's metadata", questions, at_least=1)
    whole_number("seed in the task's metadata", seed)

    def rows(count: int, seed: int) -> list[Question]:
        return list(draw_questions(count, seed=seed, clue=clue_length, types=(question_type,)))

    return {
        "test": Dataset.from_list(rows(questions, seed)),
        "fewshot": Dataset.from_list(rows(SHOTS, seed + FEWSHOT_SEED_SHIFT)),
    }


def score(doc: Question, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Return ``acc`` (1 or 0: the right option is the likeliest) and ``acc_above_chance`` of one question.

    Args:
        doc: the question.
        results: (log-likelihood, is greedy) of each option, in order. Of equal ones the first counts as the likeliest,
            as in lm-eval; the right word is at every place equally often, so this helps nobody. NaN is never a hit.
    """
    loglikelihoods = [loglikelihood for loglikelihood, _ in results]
    likeliest = max(range(len(loglikelihoods)), key=loglikelihoods.__getitem__)
    is_hit = likeliest == doc["answer_index"] and not any(map(math.isnan, loglikelihoods))
    return {"acc": float(is_hit), "acc_above_chance": above_chance(float(is_hit), len(loglikelihoods))}
