"""How many threads torch computes with: what the user says, else what is the fastest here and now.

Threads that split a product wait for each other at its end. Where a core is busy with something else, or a quota is used up,
the others wait for it, and by default they do so at full speed, in the way of the very thread they wait for.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.cores import processes_here, usable_cores, usual_threads
from harness.names import printable
from harness.progress import say_once

if TYPE_CHECKING:
    from torch import Tensor

# By each of these a user says how many threads the libraries behind torch take.
NUMBERS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DOMAIN_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "OMP_THREAD_LIMIT",
)  # fmt: skip
# By each of these a user says how threads wait.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
LOOK_SECONDS = 0.25  # what one look may take, about
TRY_SECONDS = 0.004
# More threads have to be faster than fewer by this factor, or noise would choose.
GAIN = 1.1
# A candidate that is this much slower than the best so far, in three tries or in one, is tried no more.
HOPELESS, AT_ONCE = 2.0, 10.0
USUAL_WIDTH = 512
WIDTHS = (16, 1024)
MOST_ROWS, MOST_WEIGHTS = 1024, 1024 * 576 * 576  # rows of the product, and these times its weights
SLOWER = 3.0  # of what passes took: look again
SOON, LATE, LATEST = 5.0, 60.0, 600.0  # seconds until one may look again, until one does where cores are left, at most

_SET_HERE: set[str] = set()  # variables that the user did not set
Measure = Callable[[Sequence[int], int], Mapping[int, float]]


def wait_passively() -> None:
    """Let threads that wait sleep instead of burning a core, unless the user says how they wait or torch is there already.

    The libraries read this once, when they are loaded.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"
        _SET_HERE.add("OMP_WAIT_POLICY")


def wait_as_usual() -> None:
    """Let processes that are started from here on wait as they would have without ``wait_passively``."""
    while _SET_HERE:
        os.environ.pop(_SET_HERE.pop(), None)


def seconds_by_threads(numbers: Sequence[int], width: int) -> dict[int, float]:
    """Return the median seconds of a small product by number of threads, measured in turn for ``LOOK_SECONDS`` in all.

    Numbers that turn out hopeless are missing. Torch's number of threads, its random numbers and modes are left as they were.

    Args:
        numbers: of threads, the least first.
        width: of the model.
    """
    import torch

    width = min(max(width, WIDTHS[0]), WIDTHS[1])
    rows = min(MOST_ROWS, MOST_WEIGHTS // width**2) * min(max(max(numbers) // 4, 1), 8)  # many threads, much to share
    tries: dict[int, list[float]] = {number: [] for number in numbers}
    before, end = torch.get_num_threads(), time.perf_counter() + LOOK_SECONDS
    try:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            inputs = torch.full((rows, width), 0.5, dtype=torch.float32, device="cpu")
            weight = torch.full((width, width), 1 / width, dtype=torch.float32, device="cpu")

            def product(rows: Tensor) -> Tensor:
                return torch.nn.functional.silu(rows @ weight)

            while len(tries) > 1 and (not any(tries.values()) or time.perf_counter() < end):
                for number in list(tries):
                    torch.set_num_threads(number)
                    product(inputs[: rows // 8])  # threads begin, or wake
                    tries[number].append(_timed(lambda: product(inputs)))
                    if _is_hopeless(tries[number], tries.values()):
                        del tries[number]
    finally:
        torch.set_num_threads(before)
    return {number: _median(found) for number, found in tries.items()}


def _is_hopeless(tries: Sequence[float], all_tries: Iterable[Sequence[float]]) -> bool:
    best = min(map(_median, filter(None, all_tries)))
    return _median(tries) > (HOPELESS if len(tries) > 2 else AT_ONCE) * best


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes, over as many turns as a try lasts."""
    turns, started = 0, time.perf_counter()
    while True:
        work()
        turns += 1
        taken = time.perf_counter() - started
        if taken >= TRY_SECONDS:
            return taken / turns


def _median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def fastest(seconds: Mapping[int, float]) -> int:
    """Return the fewest threads that are as fast as any, but for less than ``GAIN``."""
    best = min(seconds)
    for number in sorted(seconds):
        if seconds[number] * GAIN < seconds[best]:
            best = number
    return best


class Threads:
    """The number of threads of a process, and how it came about.

    Args:
        measure: gives seconds by number of threads, for a model's width.
        clock: seconds that only grow.

    Attributes:
        how: ``measured``, ``cores`` (only so many may be used), ``torch`` (its default, of a GPU), ``code`` (somebody called
            ``torch.set_num_threads``), or the variable by which the user said it; None before ``choose``. Behind ``measured``
            stand the numbers before, where it changed while the process ran.
    """

    def __init__(self, measure: Measure = seconds_by_threads, clock: Callable[[], float] = time.monotonic) -> None:
        self._measure, self._clock = measure, clock
        self._how: str | None = None
        self._chosen: list[int] = []  # by us, the last one last
        self._numbers: list[int] = []  # among which to choose; none where there is no choice
        self._width, self._default = USUAL_WIDTH, 0
        self._waits, self._looked = (SOON, LATE), 0.0
        self._usual: dict[tuple[str, int], float] = {}  # seconds a token, by kind and size of pass
        self._slow = 0

    @property
    def how(self) -> str | None:
        """How the number came about."""
        if self._chosen and not self._is_ours():
            return "code"
        if self._how != "measured" or len(self._chosen) < 2:
            return self._how
        return f"measured (before: {', '.join(map(str, self._chosen[:-1]))})"

    def choose(self, device: str, width: int = USUAL_WIDTH) -> None:
        """Choose the number of threads, and say so where it is not torch's; of a process, once, and again after a while.

        Args:
            device: where the model computes.
            width: of the model.
        """
        import torch

        self._width = width
        if self._how is not None:
            self._look_if(self._clock() >= self._looked + self._waits[1])
            return
        self._default = torch.get_num_threads()
        said, cores = _said_by_user(), usable_cores()
        if said is not None or self._default not in usual_threads():
            self._how = said or "code"
        elif device.split(":")[0] != "cpu" or min(cores, self._default) == 1:
            self._how = "torch" if cores >= self._default else "cores"
            self._set(min(cores, self._default))
        else:
            most = min(cores, self._default)
            self._how = "measured"
            self._numbers = sorted({most, *(2**power for power in range(most.bit_length()))})
            self._look()

    def saw(self, kind: str, tokens: int, seconds: float) -> None:
        """Take note of a pass over ``tokens``, and look again where passes have become slow, or cores may be free again.

        Args:
            kind: passes of one kind are compared.
            tokens: that went through the model.
            seconds: that it took.
        """
        if not self._numbers:
            return
        size, pace = (kind, tokens.bit_length()), seconds / max(tokens, 1)
        usual = self._usual.setdefault(size, pace)
        self._slow = self._slow + 1 if pace > SLOWER * usual else 0
        # Down at once, up slowly: the first pass of all is a slow one, and a few slow ones are not the usual.
        self._usual[size] = (usual + pace) / 2 if pace < usual else usual + 0.1 * (min(pace, SLOWER * usual) - usual)
        since, (soon, late) = self._clock() - self._looked, self._waits
        has_more = bool(self._chosen) and self._chosen[-1] < self._numbers[-1]
        self._look_if((self._slow > 1 and since >= soon) or (has_more and since >= late))

    def seen(self) -> int:
        """Return torch's number of threads, 0 while it is the one that was chosen here."""
        import torch

        return 0 if self._is_ours() else torch.get_num_threads()

    def put_back(self, seen: int) -> None:
        """Let torch compute with the number of threads that ``seen`` gave."""
        import torch

        torch.set_num_threads(seen or self._chosen[-1])

    def _look_if(self, is_due: bool) -> None:
        if is_due and self._numbers and self._is_ours():
            self._look()

    def _look(self) -> None:
        number = fastest(self._measure(self._numbers, self._width))
        has_changed = not self._chosen or number != self._chosen[-1]
        soon, late = self._waits
        self._waits = (SOON, LATE) if has_changed else (min(2 * soon, LATEST), min(2 * late, LATEST))
        self._slow, self._looked = 0, self._clock()
        if has_changed:
            self._usual.clear()
            self._set(number)

    def _set(self, number: int) -> None:
        import torch

        self._chosen.append(number)
        if number == torch.get_num_threads():
            return
        torch.set_num_threads(number)
        if number != self._default:
            threads = "1 thread" if number == 1 else f"{number} threads"
            why = "measured to be the fastest here and now" if self._how == "measured" else _why_cores()
            say_once(
                f"computing with {threads} where torch would take {self._default}: {why} (OMP_NUM_THREADS=N says another)",
                named="threads",
            )

    def _is_ours(self) -> bool:
        import torch

        return bool(self._chosen) and torch.get_num_threads() == self._chosen[-1]


def _why_cores() -> str:
    others = f", shared by {processes_here()} processes" if processes_here() > 1 else ""
    return f"this process may use no more{others}"


def _said_by_user() -> str | None:
    """Return the variable by which the user set the number of threads; one that holds no number is told."""
    for name in NUMBERS:
        value = os.environ.get(name, "")
        if re.match(r"\s*[1-9][0-9]*\s*(,|$)", value) or (name == "MKL_DOMAIN_NUM_THREADS" and value):
            return name
        if value.strip():
            say_once(f"{name} is '{printable(value)}', which is no number of threads; they are chosen by measurement")
    return None


OF_THIS_PROCESS = Threads()


@contextmanager
def watched(kind: str, tokens: int) -> Iterator[Any]:
    """Time one pass over ``tokens``, and look again at the number of threads where passes became slow."""
    started = time.perf_counter()
    yield
    OF_THIS_PROCESS.saw(kind, tokens, time.perf_counter() - started)
