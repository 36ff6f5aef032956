"""What every process that a sweep starts is given: no part in a launch around it, its share of the cores, a log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harness.cores import usable_cores
from harness.errors import HarnessError
from harness.names import printable
from harness.threads import NUMBERS

# What a launcher tells its processes: one that is inherited makes a worker half of a launch.
OF_A_LAUNCH = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
               "ROLE_WORLD_SIZE", "ROLE_NAME", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")  # fmt: skip
ALSO_OF_A_LAUNCH = "TORCHELASTIC_"


def outside(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what would make a process one of several of a launch around it."""
    return {
        name: value
        for name, value in inherited.items()
        if name not in OF_A_LAUNCH and not name.startswith(ALSO_OF_A_LAUNCH)
    }


def share_of_cores(inherited: Mapping[str, str], processes: int) -> dict[str, str]:
    """Return how many threads each of several processes is told to use; nothing where the user says how many."""
    if any(name in inherited for name in NUMBERS):
        return {}
    return {"OMP_NUM_THREADS": str(max(1, usable_cores() // processes))}


def appending(log: Path) -> int:
    """Return a descriptor that adds to a log. Raises ``HarnessError`` where it cannot be written."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise HarnessError(f"cannot write {printable(log)}: {error.strerror or error}") from error
