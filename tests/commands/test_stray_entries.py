"""One odd entry in a results folder stops no command: it is told, and the rest is used."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from written_records import write_results

from harness.cli import main
from harness.plain_files import find_plain, open_plain, read_plain
from harness.records import ledger
from harness.records.run_notes import notes_of


def lay_folder(path: Path) -> None:
    path.mkdir()


def lay_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def lay_circle(path: Path) -> None:
    path.symlink_to(path.name)


def lay_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))


def lay_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def lay_unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # a plain file by its kind, which gives nobody its beginning, not even to root


def lay_empty(path: Path) -> None:
    path.touch()


ODD: dict[Callable[[Path], None], str] = {
    lay_folder: "passed over {path}: a folder, no plain file",
    lay_dangling_link: "passed over {path}: a link to nothing, no plain file",
    lay_circle: "passed over {path}: a link to nothing, no plain file",
    os.mkfifo: "passed over {path}: a named pipe, no plain file",
    lay_socket: "passed over {path}: a socket, no plain file",
    lay_device: "passed over {path}: a device, no plain file",
    lay_unreadable: "cannot read '{path}': ",
    lay_empty: "",
}
COMMANDS = {
    "verify": ["verify", "{results}"],
    "leaderboard": ["leaderboard", "{results}"],
    "show": ["show", "{results}"],
    "compare": ["compare", "baseline", "softly", "--records", "{results}"],
    "publish": ["publish", "{results}", "--to", "{results}/../board", "--dry-run", "--skip-refused"],
    "repair": ["leaderboard", "{results}", "--repair"],
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    return write_results(tmp_path / "results")


@pytest.mark.parametrize(("lay", "sentence"), ODD.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_an_odd_entry_is_told_and_the_rest_is_used(
    results: Path, capsys: pytest.CaptureFixture[str], lay: Callable[[Path], None], sentence: str
) -> None:
    """Case stray_entries: what is no plain file is passed over, what cannot be read is one problem, like a bad line."""
    if lay is lay_unreadable and not Path("/proc/self/mem").exists():
        lay = os.mkfifo  # type: ignore[assignment]
        sentence = ODD[os.mkfifo]
    usual = {}
    for name, words in COMMANDS.items():
        status = main([word.format(results=results) for word in words])
        usual[name] = (status, capsys.readouterr().out)
    for path in (results / "x.jsonl", results / "baseline-0123456789" / "x.jsonl"):
        lay(path)
        for name, words in COMMANDS.items():
            status = main([word.format(results=results) for word in words])
            printed = capsys.readouterr()
            is_bad = sentence.startswith("cannot")
            assert status == max(usual[name][0], int(is_bad)), (name, printed.err)
            if name != "repair" or is_bad:
                assert sentence.format(path=path) in printed.out + printed.err, name
            if not is_bad:
                assert printed.out == usual[name][1], name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_a_file_that_goes_while_the_folder_is_read_is_one_problem(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ledger.record_files(results)
    gone = results / "a.jsonl"
    monkeypatch.setattr(
        ledger, "_found", lambda folder: type(find_plain(folder, is_wanted=lambda _: False))([gone, *found])
    )
    assert main(["verify", str(results)]) == 1
    assert f"cannot read '{gone}': No such file or directory" in capsys.readouterr().out
    assert len(ledger.read(results).records) == 4


@pytest.mark.parametrize("lay", [lay_folder, lay_dangling_link, os.mkfifo, lay_empty])
@pytest.mark.parametrize("name", ["run.json", "artefacts/x", "tiny/samples_x.jsonl", ".lock", "reports", "baseline-1"])
def test_odd_entries_where_a_run_keeps_its_own_stop_no_look_at_it(
    results: Path, capsys: pytest.CaptureFixture[str], name: str, lay: Callable[[Path], None]
) -> None:
    run = results / "softly-0123456789"
    path = run / name
    if path.exists():
        path.unlink()
    lay(path)
    for words in (["show", str(run), "--task", "colours_warm"], ["show", str(run)], ["verify", str(run)]):
        assert main(words) == 0, words
    assert "colours_warm" in capsys.readouterr().out


def test_notes_that_are_no_plain_file_are_none_and_nobody_waits_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    assert notes_of(tmp_path) == {}


def test_links_to_plain_files_are_read_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.jsonl").write_text("{}")
    (inside / "b.jsonl").symlink_to("a.jsonl")
    (inside / "again").symlink_to(".")
    (inside / "deeper").mkdir()
    (inside / "deeper" / "c.jsonl").write_text("{}")
    found = find_plain(inside, is_wanted=lambda name: name.endswith(".jsonl"))
    assert [path.relative_to(inside).as_posix() for path in found.files] == ["a.jsonl", "b.jsonl", "deeper/c.jsonl"]
    assert found.passed_over == []
    assert read_plain(inside / "b.jsonl") == b"{}"
    with pytest.raises(OSError, match="a folder, no plain file"):
        open_plain(inside)


def test_a_tree_deeper_than_the_stack_is_read(tmp_path: Path) -> None:
    here, depth = os.getcwd(), 1_200
    try:
        os.chdir(tmp_path)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        os.chdir(here)
        assert ledger.read(tmp_path).records == []
    finally:
        os.chdir(tmp_path)
        for _ in range(depth):
            os.chdir("d")
        for _ in range(depth):  # what goes by recursion cannot remove it
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)
