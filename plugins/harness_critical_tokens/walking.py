"""Rollouts along wrong solutions, and what they come to: a row for each solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.methods.rollout_plans import Along, Everywhere, FromTheEnd, alongs
from harness.methods.rollouts import Drawing, Rollout, Start, Trajectory, roll_out
from harness.models import acting
from harness_critical_tokens.judging import Judge, Verdict
from harness_critical_tokens.selection import critical_token, drop_test, pass_at_k

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

Row = dict[str, Any]
# A batch of rollouts of this many is about full.
FULL_BATCH = 32


@dataclass(frozen=True)
class Solution:
    """A wrong solution under its pair's number: its ids with its prompt's, and who judges what goes on from them."""

    pair: int
    trajectory: Trajectory
    judge: Judge = field(compare=False)

    @property
    def response_ids(self) -> tuple[int, ...]:
        """The T ids of the solution."""
        return self.trajectory.token_ids[self.trajectory.start :]

    @property
    def places(self) -> range:
        """After how many ids of the text each prefix ends, the prompt alone and the whole solution left out."""
        return range(self.trajectory.start + 1, len(self.trajectory.token_ids))

    def verdict(self, rollout: Rollout) -> Verdict:
        """Return what the response of a rollout came to."""
        return self.judge(rollout.whole(self.trajectory), is_cut=rollout.is_cut)

    def is_right(self, rollout: Rollout) -> bool:
        """Return whether the response of a rollout came out right."""
        return self.verdict(rollout).is_right


@dataclass(frozen=True)
class Walk:
    """How solutions are walked along.

    Attributes:
        rollouts: N from each prefix.
        mode: ``full`` makes all counts, ``quick`` those from the end back to where 5 % come out right.
        criterion: which token is critical: ``zero_run`` or ``drop_test``.
        replaces: whether critical tokens are replaced by others.
        keeps_texts: whether rows hold the texts of all rollouts.
    """

    rollouts: int
    drawing: Drawing
    mode: Literal["full", "quick"] = "full"
    criterion: Literal["zero_run", "drop_test"] = "zero_run"
    replaces: bool = True
    keeps_texts: bool = False


def walk(lm: CausalLM, solutions: Sequence[Solution], how: Walk) -> list[Row]:
    """Return a row for each solution, see ``find``'s ``rollouts.jsonl``.

    Raises:
        HarnessError: as ``roll_out``.
    """
    along = alongs(lm, [solution.trajectory for solution in solutions], how.drawing)
    plan: Callable[[Solution, Along, Walk], Everywhere | FromTheEnd] = _full if how.mode == "full" else _quick
    plans = [plan(solution, one, how) for solution, one in zip(solutions, along, strict=True)]
    roll_out(lm, plans, how.drawing)
    rows = [_row(solution, plan, how) for solution, plan in zip(solutions, plans, strict=True)]
    if how.replaces:
        _replace(lm, list(zip(solutions, along, rows, strict=True)), how)
    return rows


def enough_of(rollouts: int) -> int:
    """Return how many right rollouts of N are 5 %, which is not low any more."""
    return -(-rollouts // 20)


def _full(solution: Solution, along: Along, how: Walk) -> Everywhere:
    places = [solution.trajectory.start, *solution.places]
    return Everywhere(solution.trajectory, places, count=how.rollouts, along=along)


def _quick(solution: Solution, along: Along, how: Walk) -> FromTheEnd:
    return FromTheEnd(
        along,
        solution.places,
        count=how.rollouts,
        enough=enough_of(how.rollouts),
        is_right=solution.is_right,
        ahead=math.ceil(FULL_BATCH / how.rollouts),
        beside=[solution.trajectory.start],
    )


def _row(solution: Solution, plan: Everywhere | FromTheEnd, how: Walk) -> Row:
    start, made = solution.trajectory.start, plan.found
    verdicts = {place: [solution.verdict(rollout) for rollout in found.values()] for place, found in made.items()}
    counts: list[int | None] = [_rights(verdicts.get(place)) for place in solution.places]
    counts.append(None)  # the solution is whole there, and wrong
    settled, beyond = (plan.settled, plan.uncounted) if isinstance(plan, FromTheEnd) else (None, [])
    if settled is not None:
        counts[settled - start - 1] = enough_of(how.rollouts)
    chosen = critical_token(counts, how.rollouts)
    drop = drop_test(counts, how.rollouts) if how.mode == "full" else None
    distinct = {(name, rollout) for found in made.values() for name, rollout in found.items()}
    return {
        "pair": solution.pair,
        "ids": list(solution.response_ids),
        "counts": counts,
        "n": how.rollouts,
        "bare": _rights(verdicts[start]),
        "settled": None if settled is None else settled - start - 1,
        "critical": chosen.critical if how.criterion == "zero_run" else drop,
        "fallback": chosen.fallback if how.mode == "full" else None,
        "drop": drop,
        "no_answer": sum(verdict.answer is None for each in verdicts.values() for verdict in each),
        "unfinished": sum(verdict.is_unfinished for each in verdicts.values() for verdict in each),
        "judged": sum(map(len, verdicts.values())),
        "made": len(distinct),
        "new_tokens": sum(len(rollout.token_ids) for _, rollout in distinct),
        "uncounted": {"rollouts": len(beyond), "new_tokens": sum(len(rollout.token_ids) for rollout in beyond)},
        **({"texts": _texts(verdicts, start)} if how.keeps_texts else {}),
    }


def _rights(verdicts: Iterable[Verdict] | None) -> int | None:
    return None if verdicts is None else sum(verdict.is_right for verdict in verdicts)


def _texts(verdicts: Mapping[int, Sequence[Verdict]], start: int) -> list[Row]:
    """Return the texts of the rollouts from each prefix; token -1 is the prompt's end."""
    return [
        {"token": place - start - 1, "texts": [verdict.text for verdict in verdicts[place]]}
        for place in sorted(verdicts)
    ]


class _Replaced:
    """Rollouts that have other tokens at a place: drawn as the model has them, without the trajectory's own."""

    def __init__(self, trajectory: Trajectory, place: int, tokens: Mapping[str, int]) -> None:
        self.trajectory = trajectory
        self.starts = [Start(place, stream, (token,)) for stream, token in tokens.items()]
        self.found: dict[str, Rollout] = {}

    def begin(self) -> Iterable[Start]:
        return self.starts

    def take(self, start: Start, rollout: Rollout) -> Iterable[Start]:
        self.found[start.stream] = rollout
        return ()

    def needs(self, start: Start) -> bool:
        return True


def _replace(lm: CausalLM, walked: Sequence[tuple[Solution, Along, Row]], how: Walk) -> None:
    """Add to the rows of solutions with a critical token how often they come out right with another token there."""
    critical = [(solution, along, row) for solution, along, row in walked if row["critical"] is not None]
    plans = [_replaced(solution, along, row["critical"], how) for solution, along, row in critical]
    roll_out(lm, plans, how.drawing)
    for (solution, _, row), plan in zip(critical, plans, strict=True):
        rollouts = list(plan.found.values())
        right, n = sum(map(solution.is_right, rollouts)), how.rollouts
        ks = [k for k in (2**power for power in range(20)) if k <= n]
        row["replacement"] = {
            "right": right,
            "pass_at": {str(k): pass_at_k(n, right, k) for k in ks},
            "kept_pass_at": {str(k): pass_at_k(n, row["counts"][row["critical"]], k) for k in ks},
        }


def _replaced(solution: Solution, along: Along, token: int, how: Walk) -> _Replaced:
    place = solution.trajectory.start + token
    logits = along.logits(place).clone()
    logits[solution.trajectory.token_ids[place]] = -math.inf
    streams = [f"instead/{place}/{number}" for number in range(how.rollouts)]
    names = [solution.trajectory.stream(stream) for stream in streams]
    drawn = acting.sampled(how.drawing.seed).tokens(logits, names, place)
    return _Replaced(solution.trajectory, place, dict(zip(streams, drawn, strict=True)))
