"""Workers on this machine, one for each device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import HarnessError
from harness.names import printable
from harness.sweeps.cell import Sweep
from harness.sweeps.children import appending, outside, share_of_cores
from harness.sweeps.live import Live
from harness.sweeps.state import CellState

LOOK_SECONDS = 0.5
# How long workers get to keep what is finished, once they are asked to stop.
GRACE_SECONDS = 30.0
# How often a worker that was ended by a signal is started again without a cell having been done in between.
MOST_STARTS = 5


def command(sweep: Sweep, *, name: str, parent: int | None = None) -> list[str]:
    """Return the words that start a worker."""
    words = [sys.executable, "-m", "harness.cli", "sweep", "work", str(sweep.file), "--name", name, "--linger", "none"]
    return words if parent is None else [*words, "--parent", str(parent)]


def devices(given: str | None = None) -> list[str | None]:
    """Return a device for each worker, as ``CUDA_VISIBLE_DEVICES`` names it; a single None where there is no GPU.

    Args:
        given: what the user says, by comma.
    """
    said = given if given is not None else os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [name.strip() for name in str(said).split(",") if name.strip()] or [None]
    if not any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd")):
        return [None]
    # In a process of its own: whoever asks takes torch into memory, and perhaps a device.
    code = "import torch; print(torch.cuda.device_count())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return [str(number) for number in range(int(found.stdout))] or [None] if found.stdout.strip().isdigit() else [None]


def environments(workers: int | None, given: str | None = None) -> list[dict[str, str]]:
    """Return what each worker's environment says beyond this process's: its device, and its share of the cores."""
    found = devices(given)
    number = workers or len(found)
    each: list[dict[str, str]] = []
    for place in range(number):
        device = found[place % len(found)]
        threads = {} if number == 1 else share_of_cores(os.environ, number)
        each.append(({} if device is None else {"CUDA_VISIBLE_DEVICES": device}) | threads)
    return each


def run(live: Live, *, workers: int | None, show: Callable[[Mapping[str, CellState]], object]) -> None:
    """Start workers, start again those that a signal ended, and return when nothing is left for them to do.

    Args:
        workers: how many; None for one a device.
        show: called with the states of the cells, now and then.
    """
    crew = _Crew(live, environments_of(live.sweep, workers))
    try:
        while crew.look():
            show(crew.states)
            time.sleep(LOOK_SECONDS)
    finally:
        crew.stop()
        show(live.states())


def environments_of(sweep: Sweep, workers: int | None) -> list[dict[str, str]]:
    """Return what the environment of each worker says beyond this process's, as the sweep's file has it.

    Args:
        workers: how many; None for what the file says, else one a device.
    """
    given = sweep.engines.get("local", {})
    return environments(workers or given.get("workers"), _text(given.get("devices")))


class _Crew:
    """The workers of this machine."""

    def __init__(self, live: Live, each: Sequence[Mapping[str, str]]) -> None:
        self._live, self._each = live, each
        self.states = live.states()
        self._done = self._count_done()
        self._starts = [1] * len(each)
        self._processes = [self._start(place) for place in range(len(each))]

    def look(self) -> bool:
        """Look after the workers and the cells, and return whether anybody still works."""
        self._live.refresh()
        self.states = self._live.states()
        if self._count_done() != self._done:
            self._done, self._starts = self._count_done(), [1] * len(self._each)
        is_open = (
            any(one.status in ("waiting", "running") for one in self.states.values())
            and not self._live.state.is_stopped
        )
        for place, process in enumerate(self._processes):
            status = process.poll()
            if status is not None and status < 0 and is_open and self._starts[place] < MOST_STARTS:
                self._starts[place] += 1
                self._processes[place] = self._start(place)
        return any(process.poll() is None for process in self._processes)

    def stop(self) -> None:
        """Ask the workers that are left to end in order, and end those that do not."""
        for process in self._processes:
            if process.poll() is None:
                with suppress(OSError):
                    process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + GRACE_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, ends - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()

    def _count_done(self) -> int:
        return sum(one.status == "done" for one in self.states.values())

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        environment = outside(os.environ) | dict(self._each[place])
        log = appending(self._live.state.folder / f"worker-{place + 1}.log")
        try:
            return subprocess.Popen(
                command(self._live.sweep, name=f"worker {place + 1}", parent=os.getpid()),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0,
            )  # fmt: skip
        except OSError as error:
            raise HarnessError(f"cannot start a worker: {printable(error.strerror or error)}") from error
        finally:
            os.close(log)


def _text(value: object) -> str | None:
    if value is None:
        return None
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
