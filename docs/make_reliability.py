"""Write docs/reliability.md from the figures in docs/reliability.jsonl; with --check, only say whether it is current.

``python docs/make_reliability.py [--check] [FIGURES ...]``: further files of figures may be named; of one figure measured
twice the last one counts, so an old failure goes when the same thing has been measured anew, and not before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("reliability.md")
FIGURES = Path(__file__).with_name("reliability.jsonl")
INTRODUCTION = """\
# Reliability

Written by `make docs` from `docs/reliability.jsonl`, which the benchmarks write; do not edit.

What was done to the harness, how often, and what went wrong. A figure that failed stays here, in bold, until the same
thing has been measured again. Rows without a target are other ways to do the same, measured beside ours. Every random
fault can be repeated with the seed that stands there.

The tests under `tests/faults` do the same with fewer trials at every commit; there, deliberately bad writers have to be caught
by the same checks.
"""


def main() -> int:
    """Write or check; 1 when the page is old or a line holds no figure."""
    files = [Path(word) for word in sys.argv[1:] if not word.startswith("-")] or [FIGURES]
    try:
        page = render([figure for file in files for figure in read(file)])
    except (OSError, ValueError, KeyError) as error:
        print(f"docs/reliability.md cannot be written: {error}", file=sys.stderr)
        return 1
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        print("docs/reliability.md is not current; run `make docs`", file=sys.stderr)
        return 1
    return 0


def read(file: Path) -> list[dict[str, Any]]:
    """Return the figures in a file, one a line.

    Raises:
        ValueError: a line is no figure; it is named.
    """
    figures = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            figure = json.loads(line)
            assert {"topic", "claim", "subject", "value", "n", "failures", "date", "commit"} <= figure.keys()
        except (ValueError, AssertionError, AttributeError) as error:
            raise ValueError(f"{file.name}, line {number} is no figure") from error
        figures.append(figure)
    return figures


def render(figures: Sequence[dict[str, Any]]) -> str:
    """Return the page: the last measurement of each figure, under its topic."""
    last = {(f["topic"], f["claim"], f["subject"]): f for f in figures}
    topics = dict.fromkeys(topic for topic, _, _ in last)
    failed = sum(has_failed(figure) for figure in last.values())
    parts = [INTRODUCTION, f"{len(last)} figures, {failed} of them failed.\n"]
    for topic in topics:
        parts += [f"## {topic}\n", _table([figure for figure in last.values() if figure["topic"] == topic])]
    commands = sorted({figure.get("command", "") for figure in last.values()} - {""})
    machines = sorted({figure.get("machine", "") for figure in last.values()} - {""})
    parts.append("## Measured by\n")
    parts.append("".join(f"    {command}\n" for command in commands))
    parts.append("".join(f"* {machine}\n" for machine in machines))
    return "\n".join(parts)


def has_failed(figure: dict[str, Any]) -> bool:
    """Return whether a figure of ours missed what it promises."""
    return bool(figure["failures"]) and bool(figure.get("target"))


def _table(figures: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| what | of | figure | target | n | failures | seed | date | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        value = _cell(figure["value"])
        note = f" ({_cell(figure['note'])})" if figure.get("note") else ""
        failures = "" if figure["failures"] is None else f"{figure['failures']:,}"
        cells = [
            _cell(figure["claim"]), _cell(figure["subject"]), (f"**{value}, failed**" if has_failed(figure) else value) + note,
            _cell(figure.get("target", "")), f"{figure['n']:,}", failures, _cell(figure.get("seed")), figure["date"],
            f"`{figure['commit']}`",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    return "" if text is None else str(text).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
