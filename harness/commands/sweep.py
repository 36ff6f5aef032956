"""``harness sweep``: many ``harness eval`` commands from one file, each done once, by as many workers as there are."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.errors import Failed, HarnessError
from harness.names import counted, printable

if TYPE_CHECKING:
    from harness.sweeps.cell import Sweep
    from harness.sweeps.live import Live
    from harness.sweeps.state import CellState

EPILOG = """\
a first sweep (sweep.yaml):
  plugin: stochastok
  method_args: {scheme: [none, stochastok], steps: 48}
  tasks: langgame,tokenization_robustness
  quantization: [none, nf4]
  seed: 0..2

  harness sweep plan sweep.yaml          # every cell as a command, what is done already
  harness sweep run sweep.yaml           # one worker for each device; stop it and give it again: it goes on
  harness sweep status sweep.yaml        # from anywhere, while it runs or after
  harness leaderboard results            # the board of what is there

A cell is one `harness eval` command. Its records say whether it is done, so any number of workers, on one machine or many
with one shared folder, do each once: `harness sweep work sweep.yaml` is one, in a job of any cluster (docs/sweeps.md).
Exit status: 0 all cells are done, 1 some are not, 2 nothing was done, 130 or 143 stopped.
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sweep",
        help=HELP["sweep"],
        description="Run many evaluations from one file, each once: methods, models, quantisations, seeds, checkpoints.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    _add_plan(_part(parts, "plan", _plan, "list every cell as a command, and what is done already"))
    _add_run(_part(parts, "run", _run, "do what is not done, by workers on this machine"))
    _add_status(_part(parts, "status", _status, "say where each cell stands; exit status 1 while some are not done"))
    _part(parts, "retry", _retry, "let cells that have failed be tried again by the next run")
    _part(parts, "cancel", _cancel, "have all workers end in order; what is finished is kept, and `run` goes on")
    _add_work(
        _part(parts, "work", _work, "be a worker: what engines start, or you, on any machine that sees the folder")
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    """Do what was asked."""
    return int(args.part(args))


def _part(parts: Any, name: str, execute: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    part: argparse.ArgumentParser = parts.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    part.add_argument("file", type=Path, metavar="FILE", help="the sweep's file, such as sweep.yaml")
    part.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    part.set_defaults(part=execute)
    return part


def _add_plan(part: argparse.ArgumentParser) -> None:
    part.add_argument("--json", action="store_true", help="print it for a program")


def _add_run(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--on", default="local", metavar="ENGINE", help="what starts the workers: local (default), this machine"
    )
    part.add_argument("--workers", type=int, metavar="N", help="how many; by default one for each device here")
    part.add_argument("--dry-run", "--dry_run", action="store_true", dest="dry_run",
                      help="print the commands of the workers, and start nothing")  # fmt: skip


def _add_status(part: argparse.ArgumentParser) -> None:
    part.add_argument("--watch", action="store_true", help="stay, and show it anew every two seconds until all is done")
    part.add_argument("--json", action="store_true", help="print it for a program")


def _add_work(part: argparse.ArgumentParser) -> None:
    part.add_argument("--name", metavar="NAME", help="what the worker is called in status and logs")
    part.add_argument("--linger", metavar="S",
                      help="seconds to stay while all that is left is done by others, should one of them vanish; "
                      "none: until all is done (default 150)")  # fmt: skip
    part.add_argument("--parent", type=int, metavar="PID", help=argparse.SUPPRESS)


def _reader(file: Path) -> Callable[[], Sweep]:
    def read() -> Sweep:
        from harness.sweeps import spec

        return spec.read(file)

    return read


def _plan(args: argparse.Namespace) -> int:
    from harness.showing.sweeps import print_status
    from harness.sweeps.live import Live

    live = Live(_reader(args.file))
    print_status(live.sweep, live.state, live.states(), as_json=args.json)
    if not args.json:
        for cell in live.sweep.cells:
            print(printable(cell.run.command()))
        for note in live.sweep.notes:
            print(note)
    return 0


def _run(args: argparse.Namespace) -> int:
    """Run a sweep, show where it stands, and end with the command that shows its board."""
    from harness.showing.sweeps import Progress
    from harness.sweeps import running

    show = Progress()
    try:
        live = running.run(_reader(args.file), on=args.on, workers=args.workers, dry_run=args.dry_run, show=show)
    finally:
        show.close()
    return 0 if args.dry_run else _end(live, live.states())


def _end(live: Live, states: Mapping[str, CellState]) -> int:
    """Print where a sweep stands and what to do next, and return the exit status."""
    from harness.showing.sweeps import counts, print_status
    from harness.sweeps.running import shown_path

    found = counts(states)
    if found["done"] == len(states):
        print(f"all {counted(len(states), 'cell')} done")
    else:
        print_status(live.sweep, live.state, states)
        if found["failed"]:
            print(f"try failed cells again: harness sweep retry {shown_path(live.sweep.file)}")
    if found["done"]:
        print(f"the board: harness leaderboard {shown_path(live.sweep.output)}")
    return 0 if found["done"] == len(states) else Failed.exit_status


def _status(args: argparse.Namespace) -> int:
    from harness.showing.sweeps import Progress, print_status
    from harness.sweeps.live import Live

    if args.watch and args.json:
        raise HarnessError("--watch and --json exclude each other; give one of them")
    live, show = Live(_reader(args.file)), Progress()
    states = live.states()
    try:
        while args.watch and any(one.status in ("waiting", "running") for one in states.values()):
            show(live.sweep, states)
            time.sleep(2.0)
            live.refresh()
            states = live.states()
    finally:
        show.close()
    if not args.json:
        return _end(live, states)
    print_status(live.sweep, live.state, states, as_json=True)
    return 0 if all(one.status == "done" for one in states.values()) else Failed.exit_status


def _retry(args: argparse.Namespace) -> int:
    from harness.sweeps.live import Live

    live = Live(_reader(args.file))
    cells = live.state.retry(live.sweep.cells)
    print(f"{counted(len(cells), 'cell')} may be tried again" + (f": harness sweep run {args.file}" if cells else ""))
    return 0


def _cancel(args: argparse.Namespace) -> int:
    from harness.sweeps import running
    from harness.sweeps.live import Live

    live = Live(_reader(args.file))
    left = running.cancel(live)
    print(
        f"{counted(left, 'cell')} still under way; workers elsewhere end within seconds"
        if left
        else "no worker is left"
    )
    return 0


def _work(args: argparse.Namespace) -> int:
    from harness.sweeps.working import LINGER_SECONDS, Worker, forget_launch, name_of_this_worker

    forget_launch()
    linger = LINGER_SECONDS if args.linger is None else None if args.linger == "none" else _seconds(args.linger)
    worker = Worker(_reader(args.file), name=args.name or name_of_this_worker(), linger=linger, parent=args.parent)
    return worker.work()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise HarnessError(f"--linger is '{text}'; it has to be seconds of 0 or more, or none")
    return seconds
