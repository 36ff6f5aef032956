"""The process in which a user's file runs: started, asked within a time limit, ended with all that it started."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

LOADING_SECONDS = 60.0
"""Importing what a file needs may take far longer than a request."""

MOST_DETAIL = 300

Lines = queue.SimpleQueue[bytes | None]


class Failure(Exception):
    """Something that has no result.

    Attributes:
        error: the kind, one word: of a process ``timeout``, or ``domain`` where it could not answer.
        detail: a few words for people.
    """

    def __init__(self, error: str, detail: str = "") -> None:
        """Keep both."""
        super().__init__(error, detail)
        self.error = error
        self.detail = detail


class IsolatedFile:
    """A Python file that is loaded, and asked, in a process of its own: ``python -m harness.isolation.worker``.

    It ends with ``end``, when this object is collected, and when the interpreter exits.

    Attributes:
        description: what the handler's ``describe`` said of the file.
    """

    def __init__(self, path: Path, *, handler: str, seconds: float = LOADING_SECONDS) -> None:
        """Start the process and wait until it has loaded the file.

        Args:
            path: the file; what lies beside it can be imported, as in a script.
            handler: name of a module with ``describe(module)`` and ``answer(module, request)``, which run in the process
                and return JSON objects; what they raise is a failure.
            seconds: in which it has to be loaded.

        Raises:
            Failure: it could not be started or loaded in time; ``detail`` continues a sentence about the file.
        """
        self._process = _start(path, handler)
        self._finalizer = weakref.finalize(self, _end, self._process, os.getpid())
        self._lines: Lines = queue.SimpleQueue()
        self._has_closed = threading.Event()
        reading = (self._process.stdout, self._lines, self._has_closed)
        threading.Thread(target=_read, args=reading, daemon=True).start()
        try:
            self.description = self._reply(seconds)
        except Failure as failure:
            self.end()
            late = failure.error == "timeout"
            detail = f"took longer than {seconds:g} s to load" if late else f"did not load: {failure.detail}"
            raise Failure(failure.error, detail) from None

    @property
    def has_ended(self) -> bool:
        """Is the process gone, by itself or because it was ended?"""
        return self._has_closed.is_set() or not self._finalizer.alive

    def ask(self, request: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Send a request and return the reply to it.

        Raises:
            Failure: the reply is an error; or none came in time or the process ended, and it is gone then.
        """
        message = json.dumps({**request, "seconds": seconds}) + "\n"
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # the process is gone, which reading finds out as well
            self._process.stdin.write(message.encode())
            self._process.stdin.flush()
        return self._reply(seconds)

    def end(self) -> None:
        """Kill the process and all that it started; it may have ended already."""
        self._finalizer()

    def _reply(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
            reply: dict[str, Any] = {} if line is None else json.loads(line)
        except queue.Empty:
            self.end()
            raise Failure("timeout", f"longer than {seconds:g} s") from None
        except BaseException:  # an interrupt, for one: the reply would be taken for the next request's
            self.end()
            raise
        if not reply:
            self.end()
            raise Failure("domain", f"its process {_how_it_ended(self._process.returncode)}")
        if "error" in reply:
            raise Failure(reply["error"], reply["detail"])
        return reply


def explain(error: BaseException) -> str:
    """Return an exception in a few words."""
    if isinstance(error, Failure):
        return error.detail
    try:
        words = " ".join(str(error).split())
    except BaseException:
        words = ""
    return f"{type(error).__name__}{': ' if words else ''}{words}"[:MOST_DETAIL]


def _start(path: Path, handler: str) -> subprocess.Popen[bytes]:
    """Start a worker that can import what this process can, in a group of its own, which Ctrl-C does not reach."""
    # Sets would be written in another order by every process.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.isolation.worker", handler, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise Failure("domain", f"did not load: no process could be started: {error}") from error


def _read(stream: IO[bytes], lines: Lines, has_closed: threading.Event) -> None:
    """Pass the worker's lines on until it ends. It knows no IsolatedFile, which could not be collected otherwise."""
    with stream:
        for line in stream:
            lines.put(line)
    has_closed.set()
    lines.put(None)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a worker's whole group, unless this is a fork of the process that started it."""
    if os.getpid() != owner:
        return
    # Before waiting for it: until then its number cannot be another's.
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()


def _how_it_ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}"
