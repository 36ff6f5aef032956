"""A run on the terminal: overview, documents, and the browser through a terminal of its own."""

from __future__ import annotations

import codecs
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from written_records import write_board, write_results

from harness.cli import main
from harness.showing import listing

Show = Callable[..., str]
METHOD_RUN, BASELINE_RUN = "softly-0123456789", "baseline-0123456789"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with two runs on two tasks; the method got the first document of each wrong."""
    return write_results(tmp_path / "results")


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Return a function that calls ``harness show`` and returns what it printed."""

    def call(*words: object, status: int = 0) -> str:
        capsys.readouterr()
        assert main(["show", *map(str, words)]) == status
        return capsys.readouterr().out

    return call


def edit_samples(results: Path, run: str, old: str, new: str) -> None:
    for path in (results / run / "tiny").glob("samples_colours_warm*"):
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_a_results_folder_of_several_runs_is_listed(results: Path, show: Show) -> None:
    printed = show(results)
    assert METHOD_RUN in printed
    assert BASELINE_RUN in printed
    assert "finished" in printed


def test_a_list_of_very_many_runs_is_plain_lines(results: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_IN_A_TABLE", 1)
    shared, first, method, scores, *_ = show(results).splitlines()
    assert shared == "all: tiny, seed 0, 2026-11-24, finished"
    assert (first, method) == (BASELINE_RUN, "    method: baseline")
    assert scores == "    scores: colours_cold 0.333, colours_warm 0.600"
    assert METHOD_RUN in show(results).splitlines()


def test_the_overview_tells_what_ran_what_it_took_and_what_it_left(results: Path, show: Show) -> None:
    printed = show(results / METHOD_RUN)
    for told in (
        "softly (softly 1)", "finished, started 2026-11-24T16:00:00Z", "steps  ", "colours_warm", "0.4000", "apply softly",
        "2.5", "4,096", "adapter/weights.safetensors", "1,234 bytes", "growth.before", "harness eval --tasks colours",
    ):  # fmt: skip
        assert told in printed
    assert "Question:" not in printed  # documents come when they are asked for


def test_the_baseline_beside_a_run_is_in_its_table(results: Path, show: Show) -> None:
    for folder in (results, results / METHOD_RUN):
        flags = ["--run", "softly"] if folder == results else []
        assert re.search(r"colours_warm .* softly .* 0\.4000 .* 0\.6000 .* -0\.2000", show(folder, *flags))


def test_a_run_on_a_board_is_shown_without_a_folder_of_its_own(tmp_path: Path, show: Show) -> None:
    board = write_board(tmp_path / "records")
    assert "colours_cold" in show(board, "--run", "softly")
    printed = show(board / "board.jsonl", "--run", "baseline", "--task", "colours_warm", "--limit", "1")
    assert "Question: colours_warm 0? Answer:" in printed


def test_documents_are_printed_with_their_answers(results: Path, show: Show) -> None:
    printed = show(results / BASELINE_RUN, "--task", "colours_warm", "--doc", "1")
    assert "colours_warm, document 1 (2 of 5): wrong" in printed
    assert "target   0: a" in printed
    assert re.search(r">     -2\.000 +b +\(chosen\)", printed)
    assert re.search(r"  +-3\.250 +a +\(right\)", printed)
    assert "metrics  acc 0" in printed


def test_wrong_and_changed_documents_can_be_chosen(results: Path, show: Show) -> None:
    wrong = show(results / METHOD_RUN, "--task", "colours_warm", "--wrong")
    assert re.findall(r"document (\d+) ", wrong) == ["0", "1", "4"]
    changed = show(results / METHOD_RUN, "--changed")
    assert re.findall(r"(\w+), document (\d+) \(.*: (.*)", changed) == [("colours_warm", "0", "wrong, changed")]
    assert "baseline answered" in changed
    limited = show(results / METHOD_RUN, "--task", "colours_warm", "--wrong", "--limit", "1")
    assert re.findall(r"document (\d+) ", limited) == ["0"]


@pytest.mark.parametrize("value", ["0.5", "0.999", "2.0", "null"])
def test_a_metric_that_gives_parts_of_a_document_tells_none_wrong(
    results: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One value that is neither 0 nor 1 is enough: F1 or a similarity is no right or wrong, though it lies between."""
    [path] = (results / METHOD_RUN / "tiny").glob("samples_colours_warm*")
    text = path.read_text(encoding="utf-8")
    assert '"acc": 0.0' in text
    path.write_text(text.replace('"acc": 0.0', f'"acc": {value}', 1), encoding="utf-8")
    words = ["show", str(results / METHOD_RUN), "--task", "colours_warm"]
    assert main([*words, "--wrong"]) == 1, "the digest of the file is another now, and that is told, too"
    told = capsys.readouterr()
    assert "none of 5 documents fits" in told.out
    assert "'acc' of 'colours_warm' is not 0 or 1 for every document, so none is wrong; --metric" in told.err
    assert main([*words, "--doc", "1"]) == 1
    assert "document 1 (2 of 5)\n" in capsys.readouterr().out, "not marked as wrong"


def test_another_run_can_be_named_to_compare_with(results: Path, show: Show) -> None:
    printed = show(results / BASELINE_RUN, "--changed", "--against", results / METHOD_RUN)
    assert "softly answered" in printed
    assert re.findall(r"document (\d+) ", printed) == ["0"]


def test_the_run_to_compare_with_is_named_as_run_names_it(
    results: Path, show: Show, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the beginning of its name, in the results folder and beside a run that was named by its path."""
    for words in ([results, "--run", "baseline"], [results / BASELINE_RUN]):
        printed = show(*words, "--changed", "--against", METHOD_RUN[:8])
        assert "softly answered" in printed and re.findall(r"document (\d+) ", printed) == ["0"]
    assert main(["show", str(results), "--run", "baseline", "--changed", "--against", "nope"]) == 2
    assert "no run is called 'nope'" in capsys.readouterr().err
    assert main(["show", str(results), "--run", "baseline", "--changed", "--against", str(results)]) == 2
    assert "holds several runs; name one of" in capsys.readouterr().err


def test_text_from_models_cannot_steer_the_terminal_or_become_markup(results: Path, show: Show) -> None:
    hostile = r"\u001b]8;;http://evil\u0007[bold red]x[/bold][link=y]\u202e\u0008"
    edit_samples(results, BASELINE_RUN, '" a"', f'" a{hostile}"')
    edit_samples(results, BASELINE_RUN, "Question: colours_warm", f"{hostile}Question: colours_warm")
    printed = show(results / BASELINE_RUN, "--task", "colours_warm", "--doc", "0", status=1)  # its samples were edited
    assert not {"\x1b", "\x07", "\u202e", "\b"} & set(printed)
    assert "[bold red]x[/bold][link=y]" in printed


def test_a_generated_answer_keeps_its_lines(results: Path, show: Show) -> None:
    path = next((results / BASELINE_RUN / "tiny").glob("samples_colours_warm*"))
    row = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    row |= {"arguments": {"gen_args_0": {"arg_0": "Say\nsomething", "arg_1": {"until": ["."]}}}, "target": "red"}
    row |= {"resps": [["one\ntwo"]], "filtered_resps": ["one\ntwo"], "metrics": ["acc"], "acc": 0.0}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    printed = show(results / BASELINE_RUN, "--task", "colours_warm", status=1)  # its samples were edited
    assert "  Say\n  something\n" in printed
    assert re.search(r"answer +one\n +two\n", printed)


def test_long_prompts_are_cut_unless_asked_for_whole(results: Path, show: Show) -> None:
    edit_samples(results, BASELINE_RUN, "Question: colours_warm", "so it is said. " * 300 + "Question: colours_warm")
    flags = [results / BASELINE_RUN, "--task", "colours_warm", "--doc", "0"]
    assert "characters before this are not shown" in show(*flags, status=1)  # its samples were edited
    assert " ".join(show(*flags, "--whole", status=1).split()).count("so it is said.") == 300


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--run", "nope"], "no run is called 'nope'"),
        (["--run", "softly", "--task", "nope"], "no task 'nope' with samples in this run; there is colours_cold, colours_warm"),
        (["--run", "softly", "--task", "colours_warm", "--doc", "99"], "document 99 of 'colours_warm' was not asked"),
        (["--run", "softly", "--task", "colours_warm", "--metric", "f1"], "no metric 'f1' with samples in this run"),
        (["--run", "baseline", "--changed"], "there is no run to compare with; name one with --against RUN"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_in_a_sentence(
    results: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert main(["show", str(results), *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_an_empty_folder_and_a_broken_line_are_told(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["show", str(tmp_path / "empty")]) == 2
    assert "no records in" in capsys.readouterr().err
    with (results / METHOD_RUN / "records_colours_warm-0.jsonl").open("a", encoding="utf-8") as file:
        file.write("{torn")
    assert main(["show", str(results / METHOD_RUN)]) == 1
    printed = capsys.readouterr()
    assert "line 2" in printed.err
    assert "colours_warm" in printed.out


def test_a_run_without_a_finished_task_is_told_from_an_empty_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = {"status": "interrupted", "started": "2026-11-24T16:00:00Z", "command": "harness eval --tasks colours"}
    (tmp_path / "run.json").write_text(json.dumps(notes), encoding="utf-8")
    assert main(["show", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "it is interrupted, started 2026-11-24T16:00:00Z" in told
    assert "its command goes on with it: harness eval --tasks colours" in told


class Terminal:
    """A terminal with the browser in it: keys go in, text comes out."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.text = descriptor, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a character may come in two parts

    def press(self, key: str, until: str) -> str:
        """Press a key; return what came out up to the browser's line of keys, ``until`` among it."""
        self.text = ""
        os.write(self.descriptor, key.encode())
        return self.wait(until)

    def wait(self, until: str) -> str:
        deadline = time.monotonic() + 120
        while not re.search(re.escape(until) + r"[\s\S]*q quit", self.text):
            assert time.monotonic() < deadline, self.text
            ready, _, _ = select.select([self.descriptor], [], [], 1)
            if ready:
                self.text += self._decoder.decode(os.read(self.descriptor, 65536))
        return self.text


@contextmanager
def browsing(folder: Path, *flags: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    import pty

    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "harness.cli", "show", str(folder), *flags]
    settings = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | settings,
        # A shell's background job ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_keys_walk_through_the_documents_of_a_terminal(results: Path) -> None:
    with browsing(results / METHOD_RUN, "--task", "colours_warm") as (terminal, process):
        terminal.wait("what ran")
        assert "document 0 (1 of 5): wrong, changed" in terminal.press("n", until="document 0")
        assert "document 1 (2 of 5): wrong" in terminal.press("w", until="document 1")
        assert "document 4 (5 of 5): wrong" in terminal.press("w", until="document 4")
        terminal.press("w", until="no further wrong document")
        assert "document 3 (4 of 5)" in terminal.press("p", until="document 3")
        terminal.press("\x1b[C", until="document 4")
        terminal.press("n", until="this is the last document")
        terminal.press("c", until="no further changed document")
        terminal.press("x", until="no such key")
        os.write(terminal.descriptor, b"q")
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_the_browser_goes_to_the_next_changed_document_and_the_next_task(results: Path) -> None:
    with browsing(results / METHOD_RUN) as (terminal, process):
        terminal.wait("what ran")
        terminal.press("t", until="colours_warm, document 0")
        terminal.press("t", until="colours_cold, document 0")
        terminal.press("t", until="baseline answered")
        os.write(terminal.descriptor, b"q")
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_the_terminal_is_as_before_after_an_interrupt(results: Path) -> None:
    import termios

    with browsing(results / METHOD_RUN, "--wrong") as (terminal, process):
        before = termios.tcgetattr(terminal.descriptor)[3] & (termios.ECHO | termios.ICANON)
        terminal.wait("document 0")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert termios.tcgetattr(terminal.descriptor)[3] & (termios.ECHO | termios.ICANON) == before
