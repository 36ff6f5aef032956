"""What is lost when writers and runs are killed, calls fail and files are damaged: ``python benchmarks/durability.py``.

Everything is measured unless sections are named; ``--quick`` does a tenth of it or less. Figures are added to
``docs/reliability.jsonl``, of which ``docs/make_reliability.py`` makes a page. The faults and the checks are those of
``tests/faults``, the measurements are in ``durability_trials.py``.

Each part that is finished is kept beside the figures until all of them are written, so that the same command goes on where it
was stopped. A busy machine makes it slow, and ends nothing: a section that fails for want of memory or processes is told, the
others go on, and the command given again measures what is missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from durability_parts import Parts, code_digest, forget
from figures import Figure, table, write

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "reliability.jsonl"


@dataclass(frozen=True)
class Section:
    """A part of the benchmark: how much of it by default, and with ``--quick``."""

    amount: int
    quick: int
    help: str


# Named as the functions in durability_trials.py.
SECTIONS = {
    "kills": Section(1000, 60, "kills of a writing process"),
    "runs": Section(60, 4, "kills over the stages of a run"),
    "resumes": Section(30, 2, "runs killed again while they go on"),
    "writers": Section(8, 4, "processes that append to one file at once"),
    "syscalls": Section(60, 0, "failing calls of a run, besides each one of a write"),
    "fuzz": Section(20_000, 500, "files with damaged bytes"),
    "environments": Section(6, 6, "languages and time zones"),
}


def main() -> int:
    """Measure, write the figures, print a table; 1 when one of ours failed."""
    arguments = _parser().parse_args()
    sys.path[1:1] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests")]
    import durability_trials

    chosen = {name: getattr(arguments, name) for name in SECTIONS if getattr(arguments, name) is not None}
    amounts = chosen or {name: part.quick if arguments.quick else part.amount for name, part in SECTIONS.items()}
    output = arguments.output or (None if arguments.quick else FIGURES)
    kept = None if output is None else output.with_name(f"{output.name}.parts")
    code, figures, unfinished = code_digest(ROOT), list[Figure](), []
    for name, amount in amounts.items():
        started, parts = time.monotonic(), Parts(kept, f"{name} {amount} {code}")
        try:
            with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as folder:
                found: list[Figure] = getattr(durability_trials, name)(amount, Path(folder), parts)
        except (OSError, MemoryError, AssertionError, subprocess.SubprocessError) as error:
            unfinished.append(name)
            print(f"--{name} {amount} was stopped: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        reused = f", {parts.reused} parts were there" if parts.reused else ""
        print(f"--{name} {amount}: {time.monotonic() - started:.0f} s{reused}", file=sys.stderr)
        if output is not None:
            parts.once("figures are written", lambda found=found: write(output, found))  # type: ignore[misc]
        figures += found
    print(table(figures))
    if unfinished:
        print(f"to be measured still: {', '.join(unfinished)}; give the command again", file=sys.stderr)
        return 1
    forget(kept)
    return int(any(figure.failures for figure in figures if figure.target))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, section in SECTIONS.items():
        parser.add_argument(f"--{name}", type=int, nargs="?", const=section.amount, metavar="N",
                            help=f"{section.help} (default {section.amount})")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a tenth of it or less")
    parser.add_argument("--output", type=Path, metavar="FILE",
                        help="add the figures there (default docs/reliability.jsonl; with --quick nowhere)")  # fmt: skip
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to write meanwhile (default: the system's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
