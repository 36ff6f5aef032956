"""The versions, the machine and the time behind a score, and the memory a stage took."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.own_code import code_of
from harness.progress import process_count
from harness.records.record import EnvironmentPart
from harness.threads import OF_THIS_PROCESS

_CLEAR_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def environment(device: str, engine: str | None = None) -> EnvironmentPart:
    """Return what this process runs on; ``device`` is where the model lives, ``engine`` computes it in torch's place."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return EnvironmentPart(
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=_version("transformers") or "unknown",
        lm_eval=_version("lm_eval") or "unknown",
        peft=_version("peft") or "unknown",
        bitsandbytes=_version("bitsandbytes"),
        engine=engine,
        harness=_version("token-harness") or "0+unknown",
        harness_commit=harness_commit(),
        harness_digest=harness_digest(),
        platform=f"{platform.system()} {platform.machine()}",
        device=name,
        threads=torch.get_num_threads(),
        threads_from=OF_THIS_PROCESS.how,
        processes=process_count(),
    )


def now() -> str:
    """Return the time as records and notes of a run write it: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def harness_commit() -> str | None:
    """Return the git commit of the harness's own source tree (``-dirty`` when edited), None for an installed copy."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists() or not (folder / "pyproject.toml").is_file():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def harness_digest() -> str:
    """Return the start of the SHA-256 over what of the harness's own code decides: edited or not, what is behind a score."""
    return code_of()[:16]


class Peak:
    """Holds the peak of memory in bytes after its ``measured_peak`` block; None where the system cannot tell."""

    bytes: int | None = None


@contextmanager
def measured_peak(device: str) -> Iterator[Peak]:
    """Measure the largest memory of a stage: of the device on CUDA, of this process elsewhere."""
    peak = Peak()
    if device.startswith("cuda"):
        import torch

        torch.cuda.init()  # before which a device that is named by number has no statistics
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = int(torch.cuda.max_memory_allocated(device))
        return
    _reset_process_peak()
    yield peak
    peak.bytes = _process_peak()


def _reset_process_peak() -> None:
    # Not Linux, or not allowed: the peak since the process began is reported then.
    with suppress(OSError):
        _CLEAR_PEAK.write_text("5", encoding="ascii")


def _process_peak() -> int | None:
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if platform.system() == "Darwin" else peak * 1024)


def _version(package: str) -> str | None:
    """Return an installed version, None where there is none yet."""
    try:
        return _installed_version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _installed_version(package: str) -> str:
    """Return a version, the same all along a process: what it imported does not change under it."""
    return version(package)
