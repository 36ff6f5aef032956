"""How many cores this process may use: affinity, quotas of containers, and the other processes of one command."""

from __future__ import annotations

import math
import os
from pathlib import Path

from harness.control_groups import folders

TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Return how many threads of this process can run at once, at least 1.

    A quota of one and a half cores counts as two: the second one helps for half of the time. Processes that
    ``accelerate launch`` or ``torchrun`` started on this machine share what there is.
    """
    quota = cpu_quota()
    cores = logical_cores() if quota is None else min(logical_cores(), math.ceil(quota))
    return max(1, cores // processes_here())


def logical_cores() -> int:
    """Return the number of logical cores that the system lets this process run on, at least 1."""
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):  # neither macOS nor Windows has it
        counts.append(len(os.sched_getaffinity(0)))
    if hasattr(os, "process_cpu_count"):  # from Python 3.13; a user may lower it by PYTHON_CPU_COUNT
        counts.append(os.process_cpu_count() or counts[0])
    return max(1, min(counts))


def usual_threads(topology: Path = TOPOLOGY) -> set[int]:
    """Return the numbers of threads that torch may take by itself: one a logical core, or one a physical core."""
    cores = logical_cores()
    try:
        physical = {
            (topology / f"cpu{number}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
            for number in os.sched_getaffinity(0)
        }
    except (AttributeError, OSError, ValueError):  # Apple's chips have slow cores besides, which torch leaves out
        return set(range((cores + 1) // 2, cores + 1))
    return {cores, len(physical)}


def processes_here() -> int:
    """Return how many processes of this command run on this machine."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(told)) if told.isascii() and told.isdigit() else 1


def cpu_quota(mounted: Path | None = None, own: Path | None = None) -> float | None:
    """Return the least quota of this process's control groups in cores, None where there is none; see ``folders``."""
    quotas = [quota for folder in folders("cpu", mounted, own) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _quota_of(folder: Path) -> float | None:
    """Return the quota that a control group has itself, in cores."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None
    return cores if cores > 0 else None  # -1 is no limit in version 1
