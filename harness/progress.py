"""Progress that suits where it goes: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.redaction import redact

LINE_SECONDS = 10.0


def say(message: str) -> None:
    """Print one line about what is happening, without secrets, to standard error; of several processes the first one speaks."""
    if is_first_process():
        print(redact(message), file=sys.stderr, flush=True)


_SAID: set[str] = set()


def say_once(message: str, *, named: str | None = None) -> None:
    """Print one line as ``say`` does, if none of the same name was said since ``forget_said``."""
    name = message if named is None else named
    if name not in _SAID:
        _SAID.add(name)
        say(message)


def forget_said() -> None:
    """Begin anew: the next command of this process says its own."""
    _SAID.clear()


def process_count() -> int:
    """Return how many processes ``accelerate launch`` or ``torchrun`` started for this command."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_first_process() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK") or 0) == 0


def suit_the_terminal() -> None:
    """Make every tqdm bar of this process, lm-eval's included, a plain line now and then unless on a terminal."""
    if sys.stderr.isatty():
        return
    import tqdm.std

    original = tqdm.std.tqdm.__init__
    if original.__name__ == "in_lines":
        return

    def in_lines(self: Any, *args: Any, **kwargs: Any) -> None:
        # `maxinterval` too, or fast iterations would stretch the interval; `ncols=0` is tqdm's bar without a bar.
        lines = {"file": _Lines(), "mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS, "delay": 2.0, "ncols": 0}
        original(self, *args, **(kwargs | lines))

    tqdm.std.tqdm.__init__ = in_lines


def bar(total: int | None, label: str, *, unit: str, disable: bool = False) -> Any:
    """Return a tqdm bar over ``total`` steps, with rate and time left; None: how many come is not known."""
    from tqdm import tqdm

    disable = disable or not is_first_process()
    return tqdm(total=total, desc=label, unit=unit, dynamic_ncols=sys.stderr.isatty(), disable=disable)


class _Lines:
    """A stand-in for standard error that turns what tqdm draws over and over into lines."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Let a foreign logger, and those below it, speak of errors only."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
