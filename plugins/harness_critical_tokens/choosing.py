"""Which of a model's own solutions become a pair, and which the models of right and wrong solutions learn from.

As Lin et al. do it: a right solution with the most frequent right answer against a wrong one with the most frequent wrong
answer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.seeds import stream_seed
from harness_critical_tokens.judging import Verdict
from harness_critical_tokens.verify import answer_key


@dataclass(frozen=True)
class Chosen:
    """What was chosen of the solutions of one question, by their numbers.

    Attributes:
        right: one with the most frequent right answer; None where no solution is right.
        wrong: one with the most frequent wrong answer; None where no solution with an answer is wrong.
        negatives: one of each of the most frequent wrong answers that half of the wrong solutions give.
    """

    right: int | None
    wrong: int | None
    negatives: tuple[int, ...]


def choose(verdicts: Sequence[Verdict], *, rule: str, seed: int, question: int) -> Chosen:
    """Return what becomes of the solutions of a question. Those without an answer never count.

    Of equally frequent answers the one that was given first goes first.

    Args:
        verdicts: on each solution.
        rule: of the verifier, which says what answers are the same.
        seed: draws one of the solutions with the same answer.
        question: its number, which names the random stream.
    """
    right, wrong = (_by_answer(verdicts, rule, is_right) for is_right in (True, False))
    draw = random.Random(stream_seed(seed, "choosing", question))
    chosen = [draw.choice(numbers) for numbers in right[:1]]
    rejected = [draw.choice(numbers) for numbers in wrong[:1]]
    negatives = tuple(draw.choice(numbers) for numbers in _half(wrong))
    return Chosen(next(iter(chosen), None), next(iter(rejected), None), negatives)


def _by_answer(verdicts: Sequence[Verdict], rule: str, is_right: bool) -> list[list[int]]:
    """Return the numbers of the solutions that give each answer, the most frequent answer first."""
    found: dict[str, list[int]] = {}
    for number, verdict in enumerate(verdicts):
        if verdict.answer is not None and verdict.is_right == is_right:
            found.setdefault(answer_key(verdict.answer, rule), []).append(number)
    counts = Counter({key: len(numbers) for key, numbers in found.items()})
    return [found[key] for key, _ in counts.most_common()]


def _half(answers: Sequence[list[int]]) -> list[list[int]]:
    """Return the first answers that half of all solutions give together; an answer given once only as the first of all."""
    total, covered = sum(map(len, answers)), 0
    found: list[list[int]] = []
    for numbers in answers:
        if 2 * covered >= total or (found and len(numbers) == 1):
            break
        found.append(numbers)
        covered += len(numbers)
    return found
