"""What a process is to all code in it: foreign code may change it, and what it changed is put back and told."""

from __future__ import annotations

import gc
import locale
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from harness.folders import umask
from harness.names import printable
from harness.progress import say
from harness.threads import OF_THIS_PROCESS

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Part:
    """One thing that code can change for all other code.

    ``read`` gives what it is now, which ``restore`` takes to put it back; ``tell`` adds to ``name`` what of it changed.
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    tell: Callable[[Any, Any], str] = lambda before, after: ""


@contextmanager
def undisturbed(what: str, *, all_of_it: bool = True) -> Iterator[None]:
    """Put back after the block what it changed of this process, however it ends, and say so in one line.

    Args:
        what: how the line calls the code that runs in the block.
        all_of_it: also what a library that is imported may change for good reason: environment, import path, warnings,
            logging. Tasks are left that, as their code may count on it later.
    """
    streams, before = _Streams(), [(part, part.read()) for part in (_ALL if all_of_it else _PROCESS)]
    try:
        yield
    finally:
        told = streams.restore() + [name for part, then in before for name in _restored(part, then)]
        if told:
            listed = told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
            say(f"{what} changed {listed} for the whole process; put back as before")


def _restored(part: Part, then: Any) -> list[str]:
    """Put one part back, and return how it is called when it had changed."""
    try:
        now = part.read()
    except OSError:  # the working folder may be gone
        now = None
    if then is None or then == now:
        return []
    with suppress(OSError, ValueError, RuntimeError):
        part.restore(then)
    return [part.name + part.tell(then, now)]


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _handlers() -> dict[int, Any]:
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in found.items() if handler is not None}


def _set_handlers(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            with suppress(ValueError, OSError):  # not the main thread; a signal that nobody can handle
                signal.signal(number, handler)


def _is_timed() -> bool | None:
    """Return whether an alarm is set; how long it still takes is no state to compare."""
    return any(signal.getitimer(signal.ITIMER_REAL)) if hasattr(signal, "getitimer") else None


def _stop_timer(was_timed: bool) -> None:
    if not was_timed:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _blocked() -> set[int] | None:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ())) if hasattr(signal, "pthread_sigmask") else None


def _limits() -> dict[str, Any]:
    """Return what the system grants this process: limits of files, memory and time by name, and the cores it may use."""
    found: dict[str, Any] = {}
    if resource is not None:
        numbers = {getattr(resource, name): name for name in reversed(dir(resource)) if name.startswith("RLIMIT_")}
        found = {name: resource.getrlimit(number) for number, name in numbers.items()}  # each once, whatever its names
    return found | ({"cores": os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else {})


def _set_limits(limits: Mapping[str, Any]) -> None:
    for name, limit in limits.items():
        with suppress(OSError, ValueError):  # what is lowered for good needs rights to be raised
            if name == "cores":
                os.sched_setaffinity(0, limit)
            else:
                _, hard = resource.getrlimit(getattr(resource, name))
                resource.setrlimit(getattr(resource, name), (limit[0], hard))


def _set_environment(variables: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)
    if hasattr(time, "tzset"):
        time.tzset()


def _changed_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return f" ({', '.join(map(printable, names[:3]))}{' ...' if len(names) > 3 else ''})"


def _folder_told(_before: Any, after: str | None) -> str:
    return f" (to {printable(after)})" if after else ""


def _loggers() -> dict[str, Any]:
    known = logging.root.manager.loggerDict.items()
    loggers: dict[str, Any] = {name: each for name, each in known if isinstance(each, logging.Logger)}
    return {"root": logging.root, **loggers}


def _logging() -> dict[str, Any]:
    """Return level, handlers and switches of every logger there is, and what all of them share."""
    states: dict[str, Any] = {
        name: (each.level, each.disabled, each.propagate, tuple(each.handlers), tuple(each.filters),
               tuple(handler.level for handler in each.handlers))
        for name, each in _loggers().items()
    }  # fmt: skip
    return states | {"": (logging.root.manager.disable, logging.getLogRecordFactory(), logging.raiseExceptions)}


def _set_logging(states: Mapping[str, Any]) -> None:
    loggers = _loggers()
    for name, state in states.items():
        if not name or name not in loggers:
            continue
        each = loggers[name]
        each.setLevel(state[0])
        each.disabled, each.propagate = state[1], state[2]
        each.handlers[:], each.filters[:] = state[3], state[4]
        for handler, level in zip(state[3], state[5], strict=True):
            handler.setLevel(level)
    disabled, factory, logging.raiseExceptions = states[""]
    logging.disable(disabled)
    logging.setLogRecordFactory(factory)


class _Logging(dict[str, Any]):
    """States of loggers, equal to later ones that hold the same of the same loggers."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and all(other.get(name) == state for name, state in self.items())

    __hash__ = None


def _warnings() -> tuple[Any, ...]:
    return (list(warnings.filters), warnings.showwarning, warnings.formatwarning)


def _set_warnings(state: tuple[Any, ...]) -> None:
    filters: Any = warnings.filters
    filters[:] = state[0]
    warnings.showwarning, warnings.formatwarning = state[1], state[2]
    warnings._filters_mutated()  # type: ignore[attr-defined]  # Python remembers what it filtered


def _interpreter() -> tuple[Any, ...]:
    return (sys.getrecursionlimit(), gc.isenabled(), sys.excepthook, sys.displayhook)


def _set_interpreter(state: tuple[Any, ...]) -> None:
    sys.setrecursionlimit(state[0])
    (gc.enable if state[1] else gc.disable)()
    sys.excepthook, sys.displayhook = state[2], state[3]


def _set_import_path(path: Sequence[str]) -> None:
    sys.path[:] = path


def _of_torch(read: Callable[[Any], Any]) -> Callable[[], Any]:
    """Return a reader that gives None as long as torch is not imported: there is nothing to put back then."""

    def read_now() -> Any:
        torch = sys.modules.get("torch")
        return None if torch is None or not hasattr(torch, "set_default_dtype") else read(torch)

    return read_now


def _to_torch(write: Callable[[Any, Any], object]) -> Callable[[Any], object]:
    return lambda value: write(sys.modules["torch"], value)


def _set_device(torch: Any, device: Any) -> None:
    torch.set_default_device(
        None if device.type == "cpu" else device
    )  # a device that is named is a mode that costs time


def _arithmetic(torch: Any) -> tuple[Any, ...]:
    """Return the switches that choose among ways to compute the same, which differ in the last digits and more."""
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    return (
        torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision(), torch.is_anomaly_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory, cudnn.deterministic, cudnn.benchmark, cudnn.enabled,
        mkldnn.enabled, cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"),
    )  # fmt: skip


def _set_arithmetic(torch: Any, state: tuple[Any, ...]) -> None:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    torch.set_deterministic_debug_mode(state[0])
    torch.set_float32_matmul_precision(state[1])
    torch.set_anomaly_enabled(state[2])
    torch.utils.deterministic.fill_uninitialized_memory = state[3]
    cudnn.deterministic, cudnn.benchmark, cudnn.enabled = state[4:7]
    torch.backends.mkldnn.set_flags(state[7])
    cuda.enable_flash_sdp(state[8])
    cuda.enable_mem_efficient_sdp(state[9])
    cuda.enable_math_sdp(state[10])
    cuda.enable_cudnn_sdp(state[11])
    torch.set_autocast_enabled("cpu", state[12])
    torch.set_autocast_enabled("cuda", state[13])


def _numpy_errors() -> Any:
    numpy = sys.modules.get("numpy")
    return None if numpy is None or not hasattr(numpy, "geterr") else numpy.geterr()


_PROCESS = (
    Part("the working folder", _working_folder, os.chdir, _folder_told),
    Part("the umask", umask, os.umask, lambda _, after: f" (to {after:03o})"),
    Part("signal handlers", _handlers, _set_handlers),
    Part("the alarm", _is_timed, _stop_timer),
    Part("blocked signals", _blocked, lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask)),
    Part("limits of the system", _limits, _set_limits, _changed_names),
    Part("settings of Python", _interpreter, _set_interpreter),
    Part("torch's default dtype", _of_torch(lambda torch: torch.get_default_dtype()),
         _to_torch(lambda torch, dtype: torch.set_default_dtype(dtype)), lambda _, after: f" (to {after})"),
    Part("torch's default device", _of_torch(lambda torch: torch.get_default_device()), _to_torch(_set_device)),
    Part("torch's grad mode", _of_torch(lambda torch: torch.is_grad_enabled()),
         _to_torch(lambda torch, is_on: torch.set_grad_enabled(is_on))),
    Part("torch's threads", _of_torch(lambda _: OF_THIS_PROCESS.seen()), OF_THIS_PROCESS.put_back,
         lambda _, after: f" (to {after})"),
    Part("torch's arithmetic", _of_torch(_arithmetic), _to_torch(_set_arithmetic)),
)  # fmt: skip
_ALL = (
    *_PROCESS,
    Part("numpy's errors", _numpy_errors, lambda state: sys.modules["numpy"].seterr(**state)),
    Part("the environment", lambda: dict(os.environ), _set_environment, _changed_names),
    Part(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda name: locale.setlocale(locale.LC_ALL, name),
    ),
    Part("the import path", lambda: list(sys.path), _set_import_path),
    Part("warnings", _warnings, _set_warnings),
    Part("logging", lambda: _Logging(_logging()), _set_logging),
)


class _Streams:
    """The standard streams of a process, by their objects and below these by their file descriptors."""

    def __init__(self) -> None:
        _flush()
        self._objects = {name: getattr(sys, name) for name in _STREAMS}
        self._numbers = {name: _number_of(stream) for name, stream in self._objects.items()}
        self._duplicates: dict[int, int] = {}
        for number in range(3):
            with suppress(OSError):  # closed before the process began
                self._duplicates[number] = os.dup(number)

    def restore(self) -> list[str]:
        """Put the streams back, open ones in place of closed ones, and return how they are called when they had changed."""
        _flush()
        changed = {number for number, kept in self._duplicates.items() if _put_back(number, kept)}
        opened: dict[int, Any] = {}
        for name, stream in self._objects.items():
            is_closed = bool(getattr(stream, "closed", False))
            if getattr(sys, name) is not stream or is_closed:
                changed.add(_STREAMS[name])
            if is_closed:
                opened.setdefault(id(stream), self._opened(name))
            setattr(sys, name, opened.get(id(stream), stream))
        return [f"standard {('input', 'output', 'error')[number]}" for number in sorted(changed)]

    def _opened(self, name: str) -> Any:
        """Return a stream in place of a closed one."""
        closed, number = self._objects[name], self._numbers[name]
        if number is None:  # no file is below it: what a test put there
            return getattr(sys, f"__{name.strip('_')}__")
        mode, buffering = "r" if "in" in name else "w", 1 if "err" in name else -1
        return open(number, mode, buffering, closed.encoding, closed.errors, closefd=False)


_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2, "__stdin__": 0, "__stdout__": 1, "__stderr__": 2}


def _put_back(number: int, duplicate: int) -> bool:
    """Let a file descriptor be again what its duplicate is; return whether it was something else."""
    try:
        is_same = os.path.samestat(os.fstat(number), os.fstat(duplicate))
    except OSError:
        is_same = False
    with suppress(OSError):  # who closes every file there is closes the duplicate, too
        if not is_same:
            os.dup2(duplicate, number)
        os.close(duplicate)
    return not is_same


def _number_of(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
