"""The answers of sample files as one HTML page: tables of calls, and each answer with its calls where they were made.

Text reaches the page through Jinja2 only, which escapes it; a content security policy refuses everything but the page's own
style and script, even if that should fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.names import printable
from harness.pages import readable, render_files, shares
from harness.records import answers
from harness.records.sources import deciding_metric, is_answered_right, keyed_rows
from harness_tool_tokens.report.calls import DECIDING, Report, notes_of, shown_name, table_of
from harness_tool_tokens.report.marking import JudgedAnswer, JudgedCall, judge

TEMPLATES = Path(__file__).parent / "templates"
# Characters that are shown of one text; its middle is left out.
MOST_QUESTION, MOST_ANSWER, MOST_LINE = 2_000, 6_000, 300
MOST_CALLS, MOST_METRICS, MOST_TOOLS, MOST_ANSWERS = 50, 30, 300, 20
VERDICT_CLASSES = {"right": "right", "wrong tool": "wrong", "false": "wrong", "": ""}


def render(reports: Sequence[Report], *, most: int = 200) -> str:
    """Return the page.

    Args:
        reports: what ``calls.report_of`` counted; their files are read once more.
        most: so many documents are shown with their answers, those answered wrong first, each report with its share.

    Raises:
        HarnessError: a file cannot be read any more.
    """
    given = shares([len(report.documents) for report in reports], most)
    sections = [_section(report, share) for report, share in zip(reports, given, strict=True)]
    outcomes = Counter(
        outcome for section in sections for document in section["documents"] for outcome in document["outcomes"]
    )
    return render_files(
        TEMPLATES,
        "calls",
        sections=sections,
        # A name that no attribute can misread stands for each outcome.
        outcomes=[(f"o{number}", name, count) for number, (name, count) in enumerate(outcomes.items())],
        ids={name: f"o{number}" for number, name in enumerate(outcomes)},
        shown=sum(len(section["documents"]) for section in sections),
        total=sum(len(report.documents) for report in reports),
    )


def _section(report: Report, share: int) -> dict[str, Any]:
    heads, rows = table_of(report)
    *tools, everything = rows
    notes = notes_of(report)
    if len(tools) > MOST_TOOLS:
        notes.append(f"{len(tools) - MOST_TOOLS:,} more tools are not listed; they count in the last row.")
    return {
        "run": printable(report.source.run)[:MOST_LINE],
        "task": printable(report.source.task)[:MOST_LINE],
        "heads": heads,
        "rows": [*tools[:MOST_TOOLS], everything],
        "notes": notes,
        "answers": report.answers,
        "with_calls": report.with_calls,
        "documents": list(_documents(report, share)),
        "total": len(report.documents),
    }


def _documents(report: Report, share: int) -> Iterator[dict[str, Any]]:
    """Yield the documents that are shown, in order: wrong before unknown before right, those with troubled calls first."""
    order = {False: 0, None: 1, True: 2}
    facts = report.documents
    ranked = sorted(facts, key=lambda key: (order[facts[key][0]], not facts[key][1]))[:share]
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in ranked}
    for key, row in keyed_rows(report.source.path) if ranked else ():
        if key in found:
            found[key].append(
                _document(row, tells=report.tells) if not found[key] else {"metrics": list(_metrics(row))}
            )
    for key in ranked:
        if found[key]:
            first = found[key][0]
            metrics = [metric for rest in found[key] for metric in rest["metrics"]][:MOST_METRICS]
            yield first | {"metrics": metrics, "is_right": facts[key][0], "key": readable(first["key"], 40)}


def _document(row: dict[str, Any], *, tells: bool) -> dict[str, Any]:
    judged = [answer if tells else answer.untold() for answer in judge(row)]
    expected = judged[0].expected if judged else None
    return {
        "key": str(row.get("doc_id", "")),
        "question": readable(_question(row), MOST_QUESTION),
        "target": readable(str(row.get("target", "")), MOST_LINE),
        "expected": None if expected is None else [_written(call) for call in expected[:MOST_CALLS]],
        "answers": [_answer(answer) for answer in judged[:MOST_ANSWERS]],
        "outcomes": list(dict.fromkeys(outcome for answer in judged for outcome in answer.outcomes)),
        "metrics": list(_metrics(row)),
    }


def _question(row: Mapping[str, Any]) -> str:
    doc = row.get("doc")
    doc = doc if isinstance(doc, dict) else {}
    told = doc.get("tool_use")
    candidates = [told.get("question") if isinstance(told, dict) else None, doc.get("question")]
    return next((text for text in candidates if isinstance(text, str) and text), None) or answers.prompt(dict(row))


def _written(call: Mapping[str, Any]) -> str:
    """Return an expected call as people write it; without arguments or result where there are none."""
    arguments, result = call.get("args"), call.get("result")
    text = f"{shown_name(str(call['tool']))}({'' if arguments is None else arguments})"
    has_result = result is not None and result not in ("", call["tool"])
    return readable(f"{text} = {result}" if has_result else text, MOST_LINE)


def _answer(answer: JudgedAnswer) -> dict[str, Any]:
    """Return an answer in parts, and which right calls it missed."""
    return {
        "parts": list(_parts(answer)),
        "more_calls": max(0, len(answer.calls) - MOST_CALLS),
        "missed": [_written(call) for call in answer.missed[:MOST_CALLS]],
        "is_empty": not answer.text and not answer.calls,
    }


def _parts(answer: JudgedAnswer) -> Iterator[dict[str, Any]]:
    """Yield the text of an answer as parts of kind ``text``, ``call`` and, where one put text into it, ``result``."""
    calls = sorted(answer.calls[:MOST_CALLS], key=lambda call: call.at)
    most = max(200, MOST_ANSWER // (len(calls) + 1))
    place = 0
    for call in calls:
        at = max(place, min(call.at, len(answer.text)))
        if at > place:
            yield {"kind": "text", "text": readable(answer.text[place:at], most)}
        yield {"kind": "call", **_shown_call(call)}
        inserted = f"[{call.error}]" if call.result is None else call.result
        place = at + len(inserted) if inserted and answer.text.startswith(inserted, at) else at
        if place > at:
            yield {"kind": "result", "text": readable(inserted, MOST_LINE)}
    if place < len(answer.text):
        yield {"kind": "text", "text": readable(answer.text[place:], most)}


def _shown_call(call: JudgedCall) -> dict[str, Any]:
    words = [] if call.margin is None else [f"{call.margin:+.2f}"]
    words += [f"forced: {call.forced}"] if call.forced else []
    words += [
        f"wrong tool, {shown_name(call.due)} was due" if call.due and call.verdict == "wrong tool" else call.verdict
    ]
    return {
        "tool": shown_name(call.tool),
        "arguments": readable(call.arguments, MOST_LINE),
        "result": None if call.result is None else readable(call.result, MOST_LINE),
        "error": call.error,
        "detail": readable(call.detail, MOST_LINE),
        "words": " · ".join(readable(word, MOST_LINE) for word in words if word),
        "class": "failed" if call.error else VERDICT_CLASSES[call.verdict],
    }


def _metrics(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the metrics of a row as text; the one that tells right from wrong is marked so."""
    deciding, chosen = deciding_metric(row, DECIDING), str(row.get("filter", "none"))
    for name, value in answers.metrics(row).items():
        is_right = is_answered_right(row, DECIDING) if name == deciding else None
        yield {
            "name": printable(name[:60] if chosen == "none" else f"{name[:60]} ({chosen[:60]})"),
            "value": f"{value:g}" if isinstance(value, float) else readable(str(value), 80),
            "class": {True: "good", False: "bad", None: ""}[is_right],
        }
