"""The process itself: JSON lines in and out, with whatever the file's code prints kept out of them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from harness.isolation.process import LOADING_SECONDS, Failure, explain

GRACE_SECONDS = 2
"""The caller ends a request that takes too long; only if the caller is gone does this process end itself."""


def main(handler_name: str, path: str) -> None:
    """Load a file, say what is in it, and answer requests until the input ends."""
    requests, replies = _take_pipes()
    owner = os.getpid()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_pass_on, args=(requests, lines), daemon=True).start()
    _limit(LOADING_SECONDS)
    try:
        handler = importlib.import_module(handler_name)
        module = _load(Path(path))
        if os.getpid() != owner:
            os._exit(0)
        _write(replies, handler.describe(module))
    except BaseException as error:
        _write(replies, {"error": "domain", "detail": explain(error)})
        return
    while True:
        _limit(None)
        request = json.loads(lines.get())
        _limit(request["seconds"])
        reply = _answered(handler, module, request)
        if os.getpid() != owner:  # a fork that the code made came back from it, too: one reply is enough
            os._exit(0)
        _write(replies, reply)


def _answered(handler: ModuleType, module: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the handler answers, or ``error`` and ``detail``."""
    try:
        reply: dict[str, Any] = handler.answer(module, request)
    except Failure as failure:
        return {"error": failure.error, "detail": failure.detail}
    except BaseException as error:  # sys.exit in the code is its mistake, not our end
        return {"error": "domain", "detail": explain(error)}
    return reply


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the input and output for ourselves, and give the code empty ones.

    The descriptors are changed, not only ``sys.stdout``: libraries in C and programs that the code starts write there.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(empty, descriptor)
    # Whatever the locale, printing never fails.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    return requests, replies


def _pass_on(requests: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Queue the requests; when the caller is gone, end this process with all that it started, even during a call."""
    for line in requests:
        lines.put(line)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _limit(seconds: float | None) -> None:
    """Let the system end this process after a time, or no more.

    Unlike a thread, its alarm also ends a call into C that never lets other threads run.
    """
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS if seconds else 0)


def _write(replies: IO[bytes], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


def _load(path: Path) -> ModuleType:
    """Run a file as a module; what lies beside it can be imported, as in a script."""
    sys.path.insert(0, str(path.parent))
    name = f"isolated_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
