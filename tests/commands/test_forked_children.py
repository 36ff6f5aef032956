"""A process that the command line forked ends as the system has it: handlers belong to the process that set them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from harness import cli


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """Have the system's handlers, whatever started this process (nohup ignores one), and put its own back after the test."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def tell(queue: Any) -> None:
    queue.put([str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP)])


@pytest.mark.usefixtures("own_handlers")
def test_forked_children_end_as_the_system_has_it() -> None:
    """Case bootstrap_hangs: a child forked by the command line has the system's own handlers, the command line keeps its."""
    cli._stop_in_order()
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=tell, args=(queue,))
    child.start()
    assert queue.get(timeout=60) in (["Handlers.SIG_DFL"] * 2, ["0"] * 2)
    child.join()
    assert signal.getsignal(signal.SIGTERM) is cli._terminate


@pytest.mark.usefixtures("own_handlers")
def test_a_pool_ends_its_workers() -> None:
    """The end of a pool sends SIGTERM, which a handler of the command line would turn into an exception somewhere."""
    cli._stop_in_order()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, 1]) == [1, 1]
        workers = list(pool._pool)  # type: ignore[attr-defined]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode in {0, -signal.SIGTERM}
