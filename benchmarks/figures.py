"""Measured figures as JSON lines, from which ``docs/make_reliability.py`` writes its page.

Any benchmark may write some: ``write(path, [Figure(...)])``.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.folders import append_lines
from harness.run.environment import harness_commit


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Args:
        topic: the heading it stands under.
        claim: what was counted or measured, for example ``records lost``.
        subject: of what: ours, or something beside it.
        value: the figure as it is shown.
        target: what it should be; empty for things we only compare with.
        n: how many trials.
        failures: how many of them went wrong; None where the figure is only a measurement of something beside ours.
        seed: of the random numbers, so that a failure can be repeated.
        note: what else a reader has to know, such as the first failures.
    """

    topic: str
    claim: str
    subject: str
    value: str
    n: int
    failures: int | None
    target: str = ""
    seed: int | None = None
    note: str = ""


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Add figures to the file at ``path``, each with date, commit, machine and command."""
    where = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": harness_commit() or "unknown",
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }
    append_lines(path, lambda _: [json.dumps(asdict(figure) | where, ensure_ascii=False) for figure in figures])


def table(figures: Sequence[Figure]) -> str:
    """Return figures as a Markdown table for the terminal."""
    rows = [
        [f.claim, f.subject, f.value, f.target, f"{f.n:,}", "" if f.failures is None else f"{f.failures:,}"]
        for f in figures
    ]
    lines = ["| what | of | figure | target | n | failures |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
