"""The command that writes a generator's supervised examples as JSON lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from harness.commands import own
from harness.errors import HarnessError
from harness.json_lines import write_json_lines

Example = Mapping[str, str]
"""``prompt`` (what the model reads), ``answer`` (what it must write, with any space before it) and ``type``."""


def parser(*, prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments every generator has: ``--count``, ``--seed`` and ``--output``."""
    result = argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--count", type=int, required=True, metavar="N", help="how many examples to write, 0 or more")
    result.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="S",
        help="the same seed writes the same bytes on any machine (default 1)",
    )
    result.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="file to write, replaced whole or not at all"
    )
    return result


def run(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    generate: Callable[[argparse.Namespace], Iterable[Example]],
) -> int:
    """Parse ``arguments`` (the process's own if None), write the examples, and return the exit status: 0, or 2."""
    options = parser.parse_args(arguments)

    def work() -> None:
        print(f"wrote {write(generate(options), options.output)} examples to {options.output}")

    return own.run(work, prefix=parser.prog)


def write(examples: Iterable[Example], output: Path) -> int:
    """Write one JSON object a line in UTF-8, and return the number of lines.

    ``output`` is replaced whole, or stays as it was when anything fails.

    Raises:
        HarnessError: it cannot be written.
    """
    rows = list(examples)
    try:
        write_json_lines(output, rows)
    except OSError as error:
        raise HarnessError(
            f"{output} could not be written ({error.strerror}); name a file in a folder you own"
        ) from error
    return len(rows)
