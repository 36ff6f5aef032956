"""A cell on several devices: its command run by ``accelerate launch``, a process for each, as a child of the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.names import printable
from harness.redaction import redact
from harness.sweeps.children import appending, outside, share_of_cores

if TYPE_CHECKING:
    from harness.sweeps.cell import Cell

# What a launcher is told, too: this one is told all that it needs.
OF_ACCELERATE = ("ACCELERATE_", "FSDP_")
# Every process stops in order when it is told to, and keeps its answers; then it may be ended.
SECONDS_TO_STOP = 60.0
# How a launcher tells of a process that it ended by SIGTERM, before and after that could see to it.
ENDED_BY_LAUNCHER = {"-15", "143"}


def run_launched(cell: Cell, log: Path) -> int:
    """Run a cell's command in as many processes as it asks for, each with its part of the documents; they end with this one.

    Args:
        cell: with ``processes`` of 2 or more; relative paths in it begin in the working folder.
        log: what the processes print is added to it; its last line is the cause where they fail.

    Returns:
        The exit status of ``harness eval``: 0 when all is there, 2 for a mistake, 1 for anything else.

    Raises:
        HarnessError: there are fewer GPUs than processes, or the log cannot be written.
    """
    processes = cell.processes
    check_devices(processes, cell.run.device)
    command = [
        sys.executable,
        "-m",
        "harness.sweeps.launching",
        *launcher_flags(processes),
        "-m",
        "harness.cli",
        "eval",
    ]
    command += cell.run.words()
    begin = log.stat().st_size if log.exists() else 0
    output = appending(log)
    try:
        # A new session: Ctrl-C reaches this process alone, which then stops them in order.
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment(os.environ, processes, cell.run.device),
        )  # fmt: skip
    finally:
        os.close(output)
    try:
        status = child.wait()
    except BaseException:
        _stop(child)
        raise
    return 0 if status == 0 else _failed(log, begin)


def check_devices(processes: int, device: str | None) -> None:
    """Raise ``HarnessError`` where a process would have no device of its own. On a CPU they share its cores."""
    if device is not None and ":" in device:
        raise HarnessError(
            f"--device {printable(device)} is one device, and {processes} processes need one each; leave --device out"
        )
    import torch

    there = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else None
    if there is not None and there < processes:
        raise HarnessError(
            f"a cell of {processes} processes needs as many GPUs, and this worker sees {there}; start one worker that sees "
            "more of them, or ask for fewer processes (accelerate: {num_processes: N} in the sweep's file)"
        )


def launcher_flags(processes: int) -> list[str]:
    """Return the flags of ``accelerate launch`` that start processes on this machine, whatever its own configuration says.

    ``--multi_gpu`` is right without a GPU, too: only with it several processes are started (``--cpu`` starts one).
    """
    return [
        "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--machine_rank", "0", "--gpu_ids", "all",
        "--rdzv_backend", "static", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
    ]  # fmt: skip


def environment(inherited: Mapping[str, str], processes: int, device: str | None) -> dict[str, str]:
    """Return the environment of a launcher: nothing of a launch around this one, and the cores shared out."""
    own = {name: value for name, value in outside(inherited).items() if not name.startswith(OF_ACCELERATE)}
    own |= share_of_cores(own, processes)  # the launcher would say 1
    if device == "cpu":
        own["ACCELERATE_USE_CPU"] = "true"
    return own


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Stop a launcher and its processes: in order, and after a while for good."""
    with suppress(ProcessLookupError):
        child.terminate()
    try:
        child.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _failed(log: Path, begin: int) -> int:
    """Return the status of what failed, and repeat its cause as the last line: the launcher has more to say after it."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    causes = [line for line in lines if line.startswith("harness: ")]
    statuses = [line.partition(":")[2].split()[0] for line in lines if line.strip().startswith("exitcode ")]
    output = appending(log)
    said = causes[-1] if causes else "harness: a process of several failed; the lines above say how"
    os.write(output, f"{redact(said)}\n".encode())
    os.close(output)
    own = set(statuses) - ENDED_BY_LAUNCHER  # the first that fails has the others ended
    return 2 if causes and own == {"2"} else 1


def _end_with_the_worker() -> None:
    """Stop this process when the one that started it is gone, even killed: its end of standard input is closed then."""

    def wait() -> None:
        while os.read(0, 1 << 10):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _main() -> None:
    """Be ``accelerate launch``, as long as the worker lives."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    _end_with_the_worker()
    launch_command(launch_command_parser().parse_args())


if __name__ == "__main__":
    _main()
