"""A limit on how long one task may take: one that hangs must not hold up those after it."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from harness.errors import Failed

# Code that never comes back to Python cannot be stopped, only ended with the process.
GRACE_SECONDS = 5.0


class TimedOut(BaseException):
    """Raised inside what takes too long; not an ``Exception``, which a task's own code might catch."""


@contextmanager
def limited(seconds: float | None, what: str) -> Iterator[None]:
    """Stop the block after ``seconds``, and show where it was.

    Where the block does not come back to Python, the process ends after some seconds more; what was finished is on disk,
    and the same command goes on from there.

    Args:
        seconds: None for no limit. Only the main thread can be limited, and not on Windows; elsewhere there is no limit.
        what: how the sentence calls it.

    Raises:
        Failed: it took too long.
    """
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
        raise TimedOut

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    except TimedOut as error:
        raise Failed(f"{what} took longer than --timeout_task {seconds:g} s and was stopped") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
