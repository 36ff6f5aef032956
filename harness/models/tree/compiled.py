"""Small libraries in C, compiled once by the machine's own compiler and kept in the cache, where there is one."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from harness.folders import cache_folder, scratch_folder, write_atomic

# No -ffast-math: a library linked with it changes how the whole process rounds. -O3 gains nothing here.
FLAGS = ("-O2", "-mavx2", "-mfma", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-fopenmp", "-shared")
COMPILE_SECONDS = 60
# Eight numbers at a time, wherever they lie.
VECTORS = """
typedef float v8 __attribute__((vector_size(32), aligned(4)));
#define INLINE static inline __attribute__((always_inline))
INLINE float total(v8 s) { return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])); }
"""


def library(name: str, source: str) -> ctypes.CDLL | None:
    """Return the library that ``source`` makes, compiled now if it was not yet; None where this machine can have none.

    A machine of another kind, or without a compiler that works, has none; nothing is said of it.
    """
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        return None
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    for is_anew in (False, True):
        try:
            path = _compiled(name, VECTORS + source, is_anew=is_anew)
        except (OSError, subprocess.SubprocessError):
            return None
        with suppress(OSError):  # a file that was damaged is made anew
            return ctypes.CDLL(str(path))
    return None


def function(
    name: str, source: str, arguments: Sequence[Any], is_right: Callable[[Callable[..., None]], bool]
) -> Callable[..., None] | None:
    """Return the function ``name`` of the library that ``source`` makes, None where there is none or it is not right.

    Args:
        arguments: their types, as ctypes names them.
        is_right: tries it out.
    """
    found: Any = getattr(library(name, source), name, None)
    if found is None:
        return None
    found.argtypes, found.restype = arguments, None
    made: Callable[..., None] = found
    with usual():
        return made if is_right(made) else None


@contextmanager
def usual() -> Iterator[None]:
    """Within it new tensors stand on the CPU and may take gradients, whatever the caller asked torch for."""
    with torch.inference_mode(False), torch.device("cpu"):
        yield


def randn(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return random numbers to try a library on: float32, whatever torch's default is, as a library takes addresses."""
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _compiled(name: str, source: str, *, is_anew: bool) -> Path:
    """Return the library's file, made now if it was not yet, or if it has to be.

    Raises:
        OSError: there is no compiler, or somebody else may have written the file.
        SubprocessError: the compiler failed.
    """
    digest = hashlib.sha256("\n".join([*FLAGS, source]).encode()).hexdigest()[:16]
    target = cache_folder() / "kernels" / f"{name}-{digest}.so"
    if target.is_file() and (_mine(target) and not is_anew):
        return target
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no compiler")
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target) as folder:
        made = folder / "made.so"
        command = [compiler, *FLAGS, "-x", "c", "-", "-o", str(made)]
        subprocess.run(command, input=source.encode(), capture_output=True, check=True, timeout=COMPILE_SECONDS)
        write_atomic(target, made.read_bytes())
    target.chmod(0o644)  # whatever new files of this user get
    return target


def _mine(library: Path) -> Path:
    """Return a library of the cache. Raises ``OSError`` where somebody else may have written it: loading it runs it."""
    found = library.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError("somebody else may write it")
    return library
