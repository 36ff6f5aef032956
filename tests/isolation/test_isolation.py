"""A user's file in a process of its own: asked by a handler, with time limits, ended with all that it started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.isolation.process import Failure, IsolatedFile

CODE = """\
import os, sys, time
print("printing at import")
def double(number):
    print("printing", file=sys.stderr)
    os.write(1, b"into the pipe")
    return 2 * number
def sleep(number):
    time.sleep(number)
def leave(number):
    os._exit(number)
def stop(number):
    sys.exit(number)
"""
Started = Callable[..., IsolatedFile]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def started(code: str = CODE, **settings: float) -> IsolatedFile:
        (tmp_path / "code.py").write_text(code, encoding="utf-8")
        return IsolatedFile(tmp_path / "code.py", handler="isolated_handler", **settings)

    return started


def test_a_file_is_described_and_asked_and_what_it_prints_goes_nowhere(
    start: Started, capfd: pytest.CaptureFixture[str]
) -> None:
    file = start()
    assert {"double", "sleep"} <= set(file.description["functions"])
    assert [file.ask({"function": "double", "number": n}, seconds=10) for n in (1, 2)] == [{"result": 2}, {"result": 4}]
    file.end()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("function", "number", "kind", "words"),
    [
        ("double", -1, "negative", "no number below 0"),
        ("missing", 1, "domain", "AttributeError"),
        ("stop", 3, "domain", "SystemExit: 3"),
    ],
)
def test_what_a_handler_raises_is_a_failure_and_the_process_goes_on(
    start: Started, function: str, number: int, kind: str, words: str
) -> None:
    file = start()
    with pytest.raises(Failure) as failed:
        file.ask({"function": function, "number": number}, seconds=10)
    assert failed.value.error == kind and words in failed.value.detail
    assert not file.has_ended and file.ask({"function": "double", "number": 4}, seconds=10) == {"result": 8}
    file.end()


def test_what_takes_too_long_is_ended_and_so_is_what_ends_itself(start: Started) -> None:
    slow, gone = start(), start()
    before = time.monotonic()
    with pytest.raises(Failure, match=r"longer than 0\.3 s"):
        slow.ask({"function": "sleep", "number": 60}, seconds=0.3)
    assert slow.has_ended and time.monotonic() - before < 10
    with pytest.raises(Failure, match="its process ended with status 7"):
        gone.ask({"function": "leave", "number": 7}, seconds=10)
    assert gone.has_ended


@pytest.mark.parametrize(
    ("code", "words"),
    [("1 / 0", "did not load: ZeroDivisionError"), ("import time; time.sleep(60)", "took longer than")],
)
def test_a_file_that_does_not_load_is_a_failure(start: Started, code: str, words: str) -> None:
    with pytest.raises(Failure, match=words):
        start(code, seconds=1.5)


def test_nothing_is_left_when_the_object_is_gone(start: Started) -> None:
    file = start()
    number = file._process.pid
    del file
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
