"""What a plugin's own command, ``python -m harness_NAME``, shares: errors in a sentence, exit status, where output goes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable
from harness.threads import wait_passively

if TYPE_CHECKING:
    from rich.console import Console


def run(work: Callable[[], int | None], *, prefix: str = "error") -> int:
    """Do the work of a command as a good citizen of a shell, and return its exit status.

    Characters that a terminal cannot show are escaped. Parse the arguments before, so that ``--help`` is instant, and
    import what is heavy inside ``work``.

    Args:
        work: does everything and returns the exit status; None is 0.
        prefix: stands before the sentence of an error, on standard error.

    Returns:
        What ``work`` returned; after a ``HarnessError`` that error's status, 2 for a mistake of the user; 130 when it was
        stopped by Ctrl-C; 141 when whoever read the output had enough. Other exceptions are bugs and pass.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    wait_passively()
    try:
        status = int(work() or 0)
        sys.stdout.flush()
        return status
    except HarnessError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # 141 is what a program that is ended by that leaves; Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def write(content: str | Iterable[str], output: Path | None) -> None:
    """Write text to a file, whole or not at all, and say so; to standard output where ``output`` is None.

    Args:
        content: text, whole or in parts.
        output: the file; its folder is made.

    Raises:
        HarnessError: the file cannot be written; what was there is as it was.
    """
    if output is None:
        for part in [content] if isinstance(content, str) else content:
            sys.stdout.write(part)
        return
    try:
        write_atomic(output, content)
    except OSError as error:
        raise HarnessError(f"cannot write '{printable(output)}': {error.strerror or error}") from error
    print(f"wrote {printable(output)}")


def console() -> Console:
    """Return a console that takes no markup; wide where there is no terminal, as a log has no columns to fit."""
    from rich.console import Console

    made = Console(markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = 160
    return made
