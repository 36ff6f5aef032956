"""Run a sweep: begin, start workers by an engine, follow what they do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.names import printable
from harness.sweeps.cell import Sweep
from harness.sweeps.live import Live
from harness.sweeps.state import CellState

ENGINES = ("local",)
CANCEL_SECONDS = 20.0
Show = Callable[[Sweep, Mapping[str, CellState]], object]


def run(
    read: Callable[[], Sweep], *, on: str = "local", workers: int | None = None, dry_run: bool = False, show: Show
) -> Live:
    """Have workers do what of a sweep is not done, and return the sweep as it stands then.

    Args:
        read: returns the sweep as its file has it now.
        on: the engine that starts the workers.
        workers: how many; None for what the file says, else for what suits the engine.
        dry_run: print what would be started, and start nothing.
        show: called with the sweep and its cells' states, now and then.

    Raises:
        HarnessError: the file does not read, the engine is not there, the sweep runs with another version of the harness.
    """
    if on not in ENGINES:
        raise HarnessError(
            f"--on '{printable(on)}' is no engine; there is {', '.join(ENGINES)}, and `harness sweep work` in the jobs of a "
            "cluster"
        )
    if workers is not None and workers < 1:
        raise HarnessError(f"--workers is {workers}; it has to be 1 or more")
    live = Live(read)
    if dry_run:
        _dry_run(live, workers)
        return live
    if all(state.status == "done" for state in live.states().values()):
        return live
    live.state.begin(is_renewed=True)
    live.state.forget_stop()

    def shown(states: Mapping[str, CellState]) -> None:
        show(live.sweep, states)

    from harness.sweeps.engines import local

    local.run(live, workers=workers, show=shown)
    return live


def cancel(live: Live) -> int:
    """Have the workers of a sweep end in order, and return how many cells are still under way when that takes long."""
    live.state.ask_to_stop()
    ends = time.monotonic() + CANCEL_SECONDS
    while any(live.state.live_attempts()) and time.monotonic() < ends:
        time.sleep(0.2)
    return sum(1 for _ in live.state.live_attempts())


def _dry_run(live: Live, workers: int | None) -> None:
    import shlex

    from harness.sweeps.engines import local

    for number, environment in enumerate(local.environments_of(live.sweep, workers), start=1):
        words = local.command(live.sweep, name=f"worker {number}")
        said = [f"{name}={value}" for name, value in environment.items()]
        print(" ".join([*said, shlex.join(["harness", *words[3:]])]))


def shown_path(path: Path) -> str:
    """Return a path as one would type it here."""
    try:
        return printable(path.relative_to(Path.cwd()))
    except ValueError:
        return printable(path)
