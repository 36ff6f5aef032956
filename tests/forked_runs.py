"""Runs of the harness that start at once, because each is forked from a process that has made one already: to kill many.

``python forked_runs.py WORDS`` is that process: it runs ``harness WORDS`` once, which imports everything, then reads one wish
a line from standard input, and answers with a process id.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FORWARD = "transformers.models.llama.modeling_llama:LlamaForCausalLM.forward"
# Where a run is counted and killed: each pass of the model, and each call that makes something lasting.
STAGES = (FORWARD, "os.fsync", "os.replace", "os.unlink")


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status (negative: the signal), what it printed, and what it called."""

    code: int
    out: str
    err: str
    calls: list[str]

    @property
    def counts(self) -> Counter[str]:
        """How often it called each of ``STAGES``."""
        return Counter(self.calls)


class Started:
    """A run on its way; it hangs when it takes more than ``patience`` seconds."""

    def __init__(self, pid: int, prefix: Path, patience: float) -> None:
        self.pid, self._prefix, self._patience = pid, prefix, patience

    @property
    def err(self) -> str:
        """What it said so far on standard error."""
        return self._read("err")

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._prefix.with_suffix(".status").exists()

    def send(self, signal_number: int) -> None:
        """Send a signal; nothing happens when the run has ended."""
        try:
            os.kill(self.pid, signal_number)
        except ProcessLookupError:
            assert self.has_ended or self.wait()

    def wait(self, timeout: float | None = None) -> Ended:
        """Wait until it has ended."""
        end = time.monotonic() + (self._patience if timeout is None else timeout)
        while not self.has_ended:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"the run hangs: {self.err[-500:]}")
            time.sleep(0.002)
        status = json.loads(self._read("status"))
        return Ended(status, self._read("out"), self._read("err"), self._read("calls").splitlines())

    def _read(self, kind: str) -> str:
        file = self._prefix.with_suffix(f".{kind}")
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


class ForkedRuns:
    """Starts runs. To be used in a ``with`` block.

    Args:
        folder: takes what runs print, and the results of the first one.
        words: the command of that first run.
        patience: seconds after which a run hangs.
    """

    def __init__(self, folder: Path, words: Sequence[object], *, patience: float = 120) -> None:
        self._folder, self._words, self._number = folder, [str(word) for word in words], 0
        self._patience = patience
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> ForkedRuns:
        settings = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "forked_runs.py"), *self._words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self._folder / "first.err").open("wb"),
            text=True, encoding="utf-8", cwd=self._folder, start_new_session=True,
            env=os.environ | settings | {"HARNESS_CACHE": str(self._folder / "cache")},
        )  # fmt: skip
        answer = self._answer()
        assert answer == "ready", (self._folder / "first.err").read_text(encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(self._patience)

    def start(self, words: Sequence[object], folder: Path, **wishes: Any) -> Started:
        """Start ``harness WORDS`` in ``folder``.

        Args:
            wishes: ``environment`` (variables), ``die_at`` (a call and which, as ``fault_tools.die_at``), ``fail_at``
                (call, which, error number, for good), ``limit_files`` (bytes), ``is_humble`` (root, too, has to keep to
                permissions), ``settings`` (values for attributes of modules), ``year`` (what the clock says), ``count``
                (write down which of ``STAGES`` are called).
        """
        assert self._server.stdin is not None
        self._number += 1
        prefix = self._folder / f"run-{self._number}"
        wish = {"words": [str(word) for word in words], "folder": str(folder), "prefix": str(prefix), **wishes}
        self._server.stdin.write(json.dumps(wish) + "\n")
        self._server.stdin.flush()
        return Started(int(self._answer()), prefix, self._patience)

    def run(self, words: Sequence[object], folder: Path, *, timeout: float | None = None, **wishes: Any) -> Ended:
        """Start a run and wait for its end."""
        return self.start(words, folder, **wishes).wait(timeout)

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


def serve() -> None:
    """Run once, then fork one run for each line of standard input."""
    sys.path.append(str(HERE / "faults"))
    _warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        if os.fork() == 0:
            _keep(json.loads(line))
        _reap(os.WNOHANG)
    _reap(0)


def _reap(options: int) -> None:
    """Take note of keepers that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def _warm_up() -> None:
    """Import and cache what a run does, by one run."""
    import torch
    from torch.utils import collect_env
    from tqdm.std import TqdmDefaultWriteLock

    from harness.cli import main

    # Forked processes would share this lock, and one that is killed while it holds it would stop all others.
    TqdmDefaultWriteLock.mp_lock = None

    torch.set_num_threads(1)
    # lm-eval asks pip what is installed, which takes seconds; the answer does not matter here.
    collect_env.get_pretty_env_info = lambda: "not asked"
    with contextlib.redirect_stdout(sys.stderr):
        code = main(sys.argv[1:])
    if code:
        raise SystemExit(code)


def _keep(wish: Mapping[str, Any]) -> None:
    """Fork the run, tell its process id, wait for its end, write that down, and end."""
    pipes = {number: os.pipe() for number in (1, 2)}
    pid = os.fork()
    if pid == 0:
        for number, (reader, writer) in pipes.items():
            os.close(reader)
            os.dup2(writer, number)
            os.close(writer)
        _be(wish)
    print(pid, flush=True)
    # By pipes, so that a limit on the run's files is none on what it says.
    files = {pipes[1][0]: f"{wish['prefix']}.out", pipes[2][0]: f"{wish['prefix']}.err"}
    for _, writer in pipes.values():
        os.close(writer)
    while files:
        for reader in select.select(list(files), [], [])[0]:
            with open(files[reader], "ab") as file:
                file.write(block := os.read(reader, 1 << 16))
            if not block:
                del files[reader]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    half = Path(f"{wish['prefix']}.half")
    half.write_text(str(code), encoding="utf-8")
    half.rename(f"{wish['prefix']}.status")
    os._exit(0)


def _be(wish: Mapping[str, Any]) -> None:
    """Be the run, in a process that is like a new one."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
        os.environ.update(wish.get("environment", {}))
        sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
        time.tzset()
        os.chdir(wish["folder"])
        if wish.get("is_humble"):
            _drop_override()
        code = _run(wish)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as Python does, so that what is put there is asked
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _run(wish: Mapping[str, Any]) -> int:
    from fault_tools import at_call, die_at, fail_at, limit_files

    from harness.cli import main

    for name, value in wish.get("settings", {}).items():
        module, _, attribute = name.partition(":")
        setattr(importlib.import_module(module), attribute, value)
    if "year" in wish:
        _set_clock(wish["year"])
    with ExitStack() as stack:
        if wish.get("count"):
            calls = os.open(f"{wish['prefix']}.calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            write = os.write
            stack.enter_context(
                at_call("", 0, print, watch=STAGES, tell=lambda name: write(calls, f"{name}\n".encode()))
            )
        if "die_at" in wish:
            name, k = wish["die_at"]
            stack.enter_context(die_at(name, k, watch=(name,)))
        if "fail_at" in wish:
            name, k, error, for_good = wish["fail_at"]
            stack.enter_context(fail_at(name, k, error, for_good=for_good, watch=(name,)))
        if "limit_files" in wish:
            limit_files(wish["limit_files"])
        return main(wish["words"])


def _set_clock(year: int) -> None:
    """Let the harness read another year from its clock."""
    import datetime

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.now(tz).replace(year=year, day=1)

    for module in [module for name, module in sys.modules.items() if name.startswith("harness.")]:
        if hasattr(module, "datetime"):
            module.datetime = Clock


def _drop_override() -> None:
    """Give up the right of root to write where permissions forbid it (CAP_DAC_OVERRIDE), when this is root."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    content = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, content) == 0
    for place in (0, 1, 2):  # effective, permitted, inheritable: bit 1 overrides writing, bit 2 reading
        content[place] &= ~0b110
    assert libc.capset(header, content) == 0


if __name__ == "__main__":
    serve()
