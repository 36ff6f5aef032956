"""The control groups of this process: the folders in which a container or a cluster's job has its limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MOUNTED = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def folders(controller: str, mounted: Path | None = None, own: Path | None = None) -> Iterator[Path]:
    """Yield the folders in which limits of this process may stand: its groups', and those above, whose limits hold as well.

    Args:
        controller: such as ``cpu`` or ``memory``.
        mounted: where control groups are mounted, of version 1, 2, or both.
        own: the file that names those of this process.
    """
    mounted = MOUNTED if mounted is None else mounted
    try:
        lines = (OWN if own is None else own).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mounts = [mounted, mounted / "unified"]
        elif controller in controllers.split(","):
            mounts = [mounted / controller, mounted / controllers]
        else:
            continue
        # In a container the path may be the host's, which is not to be seen here; the mount itself is the container's then.
        parts = [part for part in PurePosixPath(path).parts if part not in {"/", ".."}]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                yield mount.joinpath(*parts[:depth])
