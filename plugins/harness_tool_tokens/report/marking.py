"""An answer in a row of a sample file, with each call held against the right ones, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.records import answers
from harness.tasks.alignment import pairing
from harness_tool_tokens.tools.arguments import ERRORS
from harness_tool_tokens.tools.call import Call

MOST_ALIGNED = 500
"""So many calls of an answer, and so many right ones, are compared in order."""

MOST_MARGIN = 1e300

NO_CALL, ALL_RIGHT, WRONG_TOOL, MISSED, FALSE = "no call", "all calls right", "wrong tool", "missed", "false"
OTHER_ERROR = "other"

Verdict = Literal["right", "wrong tool", "false", ""]


@dataclass
class JudgedCall(Call):
    """A call held against the right ones.

    Attributes:
        verdict: whether its tool was due; empty where the task does not tell.
        due: the tool that was due instead of a wrong one.
    """

    verdict: Verdict = ""
    due: str = ""


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer with its calls.

    Attributes:
        expected: the right calls in order; None where the task does not tell.
        missed: those of them in whose place nothing was called.
    """

    text: str
    calls: tuple[JudgedCall, ...] = ()
    expected: tuple[Mapping[str, Any], ...] | None = None
    missed: tuple[Mapping[str, Any], ...] = ()

    @property
    def outcomes(self) -> list[str]:
        """What happened in it, as the page filters by."""
        verdicts: set[str] = {call.verdict for call in self.calls}
        found = [name for name in (WRONG_TOOL, FALSE) if name in verdicts]
        found += [MISSED] if self.missed else []
        errors = {call.error for call in self.calls if call.error}
        found += [f"error: {error}" for error in (*ERRORS, OTHER_ERROR) if error in errors]
        if not self.calls:
            return [NO_CALL, *found]
        return found or ([ALL_RIGHT] if verdicts == {"right"} else [])

    @property
    def is_troubled(self) -> bool:
        """Whether something went wrong with its calls."""
        return not {ALL_RIGHT, NO_CALL}.issuperset(self.outcomes)

    def untold(self) -> JudgedAnswer:
        """Return the same answer as of a document that does not tell the right calls."""
        return JudgedAnswer(self.text, tuple(replace(call, verdict="", due="") for call in self.calls))


def judge(row: dict[str, Any]) -> list[JudgedAnswer]:
    """Return the answers in a row of a sample file, none where nothing was generated.

    A row without traces is of a model without tools: its answers have no calls. What is malformed in a row is left out.
    """
    texts = answers.raw_texts(row)
    traces = row.get("traces")
    traces = traces if isinstance(traces, list) else []
    expected = _expected(row)
    pairs = [
        (texts[n] if n < len(texts) else "", traces[n] if n < len(traces) else [])
        for n in range(max(len(texts), len(traces)))
    ]
    return [_judged(text, _calls(trace), expected) for text, trace in pairs]


def _judged(text: str, calls: Sequence[JudgedCall], expected: tuple[Mapping[str, Any], ...] | None) -> JudgedAnswer:
    if expected is None:
        return JudgedAnswer(text, tuple(calls))
    due = [str(call["tool"]) for call in expected[:MOST_ALIGNED]]
    pairs = pairing(due, [call.tool for call in calls[:MOST_ALIGNED]])
    meets = {place: due[number] for number, place in pairs}
    met = {number for number, _ in pairs}
    return JudgedAnswer(
        text,
        tuple(_with_verdict(call, meets.get(place)) for place, call in enumerate(calls)),
        expected,
        tuple(call for number, call in enumerate(expected) if number not in met),
    )


def _with_verdict(call: JudgedCall, due: str | None) -> JudgedCall:
    verdict: Verdict = "false" if due is None else "right" if due == call.tool else "wrong tool"
    return replace(call, verdict=verdict, due=due or "")


def _expected(row: dict[str, Any]) -> tuple[Mapping[str, Any], ...] | None:
    doc = row.get("doc")
    told = doc.get("tool_use") if isinstance(doc, dict) else None
    calls = told.get("calls") if isinstance(told, dict) else None
    if not isinstance(calls, list):
        return None
    return tuple(call for call in calls if isinstance(call, dict) and isinstance(call.get("tool"), str))


def _calls(trace: Any) -> list[JudgedCall]:
    parts = [part for part in trace if isinstance(part, dict)] if isinstance(trace, list) else []
    return [_call(part) for part in parts if isinstance(part.get("tool"), str)]


def _call(part: Mapping[str, Any]) -> JudgedCall:
    at, margin, error, result = (part.get(name) for name in ("at", "margin", "error", "result"))
    return JudgedCall(
        tool=part["tool"],
        at=at if isinstance(at, int) and at >= 0 else 0,
        # Neither true, NaN, infinity nor a whole number that no float holds.
        margin=float(margin) if type(margin) in {int, float} and abs(margin) < MOST_MARGIN else None,  # type: ignore[arg-type]
        arguments=_text(part.get("arguments")),
        result=None if result is None else _text(result),
        error=None if not error else error if error in ERRORS else OTHER_ERROR,
        detail=_text(part.get("detail")),
        forced=_text(part.get("forced")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
