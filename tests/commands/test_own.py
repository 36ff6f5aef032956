"""A plugin's own command: errors, exit status, and where output goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import HarnessError
from harness.commands import own
from harness.errors import Failed


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (HarnessError("there is no such clock"), 2, "clocks: there is no such clock\n"),
        (Failed("the clock has no score"), 1, "clocks: the clock has no score\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_user_can_correct_is_one_sentence_and_a_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own.run(lambda: raising(error), prefix="clocks") == status
    assert capsys.readouterr() == ("", said)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        own.run(lambda: 1 // 0)


def test_the_status_of_the_work_is_the_commands() -> None:
    assert own.run(lambda: None) == 0 and own.run(lambda: 3) == 3


def test_output_goes_to_a_file_whole_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write(["tick\n", "tock\n"], tmp_path / "new" / "clocks.txt")
    assert (tmp_path / "new" / "clocks.txt").read_text(encoding="utf-8") == "tick\ntock\n"
    assert capsys.readouterr().out == f"wrote {tmp_path}/new/clocks.txt\n"
    own.write("tick\n", None)
    assert capsys.readouterr().out == "tick\n"
    with pytest.raises(HarnessError, match=r"cannot write '.*new': "):
        own.write("tock\n", tmp_path / "new")
    assert (tmp_path / "new" / "clocks.txt").exists()


def command(code: str, **more: str) -> subprocess.Popen[bytes]:
    program = f"import sys\nfrom harness.commands import own\nsys.exit(own.run(lambda: {code}))"
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **more}
    )


@pytest.mark.parametrize("lines", [3, 100_000], ids=["little", "much"])
def test_a_reader_who_has_enough_is_no_error(lines: int) -> None:
    process = command(f"print('tick\\n' * {lines})")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=60) == 141


def test_characters_that_a_terminal_cannot_show_are_escaped() -> None:
    process = command("print('\\u2318')", PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=60)
    assert (out.strip(), err, process.returncode) == (b"\\u2318", b"", 0)
