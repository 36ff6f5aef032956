"""Responses as one HTML page: each token coloured by its weight, critical tokens outlined, and the run's figures below.

Text reaches the page through Jinja2 only, which escapes it; a content security policy refuses everything but the page's own
style and script.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.folders import write_atomic
from harness.names import printable
from harness.pages import readable, render_files
from harness_critical_tokens.report import figures
from harness_critical_tokens.report.gathering import Gathered, Shown, gather
from harness_critical_tokens.report.grouping import Group, groups

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "report.html"
LEVELS = 10
MOST_RESPONSES = 200
# Characters that are shown of one text, and of one fact.
MOST_PROMPT, MOST_TOKENS, MOST_FACT = 2_000, 2_000, 300
# What carries a meaning without colour: a class for each mark.
CRITICAL, FALLBACK, DROP, ERROR, LATER, BLANK, NEWLINE, END = "k", "f", "d", "u", "g", "s", "n", "e"


def write_page(folder: Path, *, most: int = MOST_RESPONSES) -> Path:
    """Write ``report.html`` into the folder of a run, whole or not at all, and return its path.

    Args:
        folder: of what a run of ``score``, ``cdpo`` or ``find`` left.
        most: so many responses are shown; the figures are of all.

    Raises:
        HarnessError: the folder holds nothing that can be shown.
    """
    path = folder / PAGE
    write_atomic(path, render(gather(folder), most=most))
    return path


def render(gathered: Gathered, *, most: int = MOST_RESPONSES, first: int = 0) -> str:
    """Return the page.

    Args:
        gathered: a run's responses and figures.
        most: so many responses are shown; the figures are of all.
        first: the number, from 0, of the first one that is shown.

    Raises:
        HarnessError: ``most`` or ``first`` is negative.
    """
    if min(most, first) < 0:
        raise HarnessError(f"{min(most, first)} responses cannot be shown or passed over; give 0 or more")
    names = figures.known_weights(gathered)
    shown = gathered.responses[first : first + most]
    return render_files(
        TEMPLATES,
        "report",
        facts=list(_facts(gathered.made_by)),
        pairs=_pairs(shown, names[0] if names else None, gathered.ratio_scale),
        shown=len(shown),
        first=first,
        total=len(gathered.responses),
        # The page stays small: the base's probability is told where nothing else is.
        weights=[(name, figures.LABELS[name]) for name in names if name != "probability" or len(names) == 1],
        scale=f"{gathered.ratio_scale:g}",
        levels=range(LEVELS + 1),
        kinds=sorted({each.kind for each in shown if each.kind}),
        histograms=[(figures.LABELS[name], figures.histogram(gathered, name)) for name in names],
        tables=_tables(gathered),
        curves=figures.curves(gathered),
        width=figures.WIDTH,
        height=figures.HEIGHT,
    )


def _tables(gathered: Gathered) -> list[dict[str, Any]]:
    made = (
        ("How well a weight finds the critical token", figures.precision_table(gathered)),
        ("Ranks of the critical token, as the method reports them", figures.identification_table(gathered.report)),
    )
    return [{"title": title, "heads": table[0], "rows": table[1]} for title, table in made if table is not None]


def _facts(made_by: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield what made the page, names of what is nested joined by a point."""
    for name, value in made_by.items():
        if isinstance(value, dict):
            yield from _facts(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield printable(before + name), readable(text, MOST_FACT)


def _pairs(responses: Sequence[Shown], name: str | None, ratio_scale: float) -> list[dict[str, Any]]:
    """Return the responses by pair, in order, coloured by one of the weights."""
    found: dict[int, dict[str, Any]] = {}
    for each in responses:
        pair = found.setdefault(
            each.pair,
            {
                "number": each.pair,
                "prompt": readable(each.prompt, MOST_PROMPT),
                "kind": "",
                "style": "",
                "responses": [],
            },
        )
        pair["kind"], pair["style"] = each.kind or pair["kind"], each.style or pair["style"]
        pair["responses"].append(_response(each, name, ratio_scale))
    return list(found.values())


def _response(shown: Shown, name: str | None, ratio_scale: float) -> dict[str, Any]:
    weights = None if name is None else shown.weights(name, ratio_scale)
    made = groups(shown.text, shown.offsets)
    return {
        "side": printable(shown.side),
        "groups": [_group(shown, group, weights) for group in made[:MOST_TOKENS]],
        "left_out": sum(len(group.text) for group in made[MOST_TOKENS:]),
        "rollouts": shown.rollouts.made if shown.rollouts else None,
    }


def _group(shown: Shown, group: Group, weights: Sequence[float] | None) -> dict[str, Any]:
    """Return one coloured element: its text as it is shown, as it is where that differs, its classes and its title."""
    tokens = range(group.first, group.end)
    weighed = [token for token in tokens if weights is not None and token < len(weights)]
    chosen = max(weighed, key=lambda token: weights[token] if weights else 0, default=group.first)
    level = round(LEVELS * weights[chosen]) if weights and weighed else 0
    visible = readable(group.text, len(group.text))
    return {
        "text": visible,
        "raw": None if visible == group.text else json.dumps(group.text),
        "classes": " ".join([f"w{level}"] * (level > 0) + _marks(shown, group)),
        "title": " ".join([visible, *_numbers(shown, chosen)]),
    }


def _marks(shown: Shown, group: Group) -> list[str]:
    tokens = range(group.first, group.end)
    rollouts, marks = shown.rollouts, []
    place = shown.place()
    if place is not None and place in tokens:
        marks.append(CRITICAL)
    if rollouts is not None:
        marks += [FALLBACK] * (rollouts.fallback in tokens) + [DROP] * (rollouts.drop in tokens)
    if shown.span is not None and _touches(shown, tokens, [shown.span]):
        marks.append(ERROR)
    elif _touches(shown, tokens, shown.propagated):
        marks.append(LATER)
    if not group.text:
        marks.append(END)
    elif group.text.isspace():
        marks.append(NEWLINE if "\n" in group.text else BLANK)
    return marks


def _touches(shown: Shown, tokens: range, spans: Sequence[tuple[int, int]]) -> bool:
    return any(
        shown.offsets[token][0] < end and start < shown.offsets[token][1] for token in tokens for start, end in spans
    )


def _numbers(shown: Shown, token: int) -> Iterator[str]:
    """Yield what is known of a token: s, p, q, log ratio d, and the rate of right rollouts from the prefix that it ends."""
    for letter, name in (("s", "log_score"), ("p", "positive"), ("q", "negative"), ("b", "base")):
        logs = shown.logs.get(name)
        if logs is not None and token < len(logs) and (letter != "b" or len(shown.logs) == 1):
            yield f"{letter}={_short(math.exp(min(0.0, logs[token])))}"
    ratios = shown.logs.get("log_ratio")
    if ratios is not None and token < len(ratios):
        yield f"d={_short(ratios[token])}"
    if shown.rollouts is not None and token < len(shown.rollouts.counts):
        count = shown.rollouts.counts[token]
        said = "?" if count is None else f"≥{count}" if token == shown.rollouts.settled else str(count)
        yield f"r={said}/{shown.rollouts.made}"


def _short(number: float) -> str:
    """Return a number in two digits, without the 0 before the point."""
    text = f"{number:.2g}"
    if "e" in text:
        text = "0" if abs(number) < 1e-4 else f"{number:.0f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
