"""Nothing goes that the harness did not make: whatever records, links and names in the output folder say."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.folders import carry_over, new_folder, write_atomic
from harness.removal import ANSWERS, TEMPORARY, put, remove, samples_of, temporary_of

pytestmark = pytest.mark.usefixtures("fresh")
Command = Callable[..., Any]
LEAVES = """
(workdir / "adapter").mkdir(exist_ok=True)
(workdir / "adapter" / "rows.txt").write_text("of the method")
lm.model.model.norm.weight.data.mul_(2)
return lm
"""
# Names that somebody's own files may have, where careless code would take them for ours; a last slash makes a folder.
TEMPTING = (
    ".notes.md", ".git/", ".git.old", ".x.partial", ".notes.old", ".lock", ".results.mine/", ".records_colours.jsonl.swp",
    "samples_my_annotations.jsonl", "samples_colours.jsonl", "samples_colours_2026-11-30.jsonl", "samples_colours_best.jsonl",
    "samples_others_2026-01-02T03-04-05.678901.jsonl", "results_mine.json", "results_2026.json", "run.json.bak",
    "artefacts.old", "command.txt~", "answers-0.jsonl", "adapter/", "my thesis.md", "records.txt", "0123456789abcdef",
)  # fmt: skip


def run_folder() -> Path:
    """Return the folder of the one run below ``out`` that has artefacts, else the only one there is."""
    folders = [path.parent for path in Path("out").glob("*/run.json")]
    return next((path for path in folders if (path / "artefacts").exists()), folders[0])


def told(path: Path) -> str:
    """Return what somebody would miss of a file, link or folder."""
    return f"-> {os.readlink(path)}" if path.is_symlink() else "folder" if path.is_dir() else path.read_text("utf-8")


def bait(folder: Path, rng: random.Random, precious: Path) -> dict[Path, str]:
    """Fill a folder with what is somebody's own, and return what each of it says."""
    made: dict[Path, str] = {}
    for name in TEMPTING:
        path = folder / name
        if os.path.lexists(path):
            continue
        kind = "folder" if name.endswith("/") else rng.choice(["file", "file", "link", "dangling", "folder link"])
        if kind == "file":
            path.write_text(f"mine {rng.random()}", "utf-8")
        elif kind == "folder":
            path.mkdir()
            (path / "inside.txt").write_text("mine, too", "utf-8")
            made[path / "inside.txt"] = told(path / "inside.txt")
        else:
            path.symlink_to({"link": precious / "a.txt", "dangling": precious / "none", "folder link": precious}[kind])
        made[path] = told(path)
    return made


def test_a_file_that_a_record_names_outside_its_run_stays(evaluate: Command) -> None:
    """Case record_names_outside_file: the file stays, the run ends with 0 and its new records."""
    assert evaluate("--tasks", "colours,write_colours").code == 0
    folder = run_folder()
    Path("precious.txt").write_text("mine", "utf-8")
    Path("out/beside.txt").write_text("mine", "utf-8")
    [samples] = folder.glob("*/samples_write_colours_*")
    named = ["../../precious.txt", "../beside.txt", str(Path("precious.txt").absolute()), "run.json", ".", "x\0y"]
    for path in folder.glob("records_colours*"):
        line = json.loads(path.read_text("utf-8"))
        lines = [line | {"samples": line["samples"] | {"path": name}} for name in [*named, f"{folder}/{samples.name}"]]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert evaluate("--tasks", "colours").code == 0
    assert Path("precious.txt").read_text("utf-8") == Path("out/beside.txt").read_text("utf-8") == "mine"
    assert samples.exists(), "another task's, which its record names"
    assert len(list(folder.glob("*/samples_colours_*"))) == 1


def test_files_of_the_users_own_stay_in_a_runs_folder(evaluate: Command) -> None:
    """Case foreign_files: hidden files and folders, and samples that are no task's of this run, stay."""
    assert evaluate().code == 0
    folder = run_folder()
    [model] = [path for path in folder.iterdir() if path.is_dir()]
    (folder / ".notes.md").write_text("mine", "utf-8")
    (folder / ".git/objects").mkdir(parents=True)
    (folder / ".git/objects/ab").write_text("mine", "utf-8")
    (model / "samples_my_annotations.jsonl").write_text("{}\n", "utf-8")
    stray = model / "samples_colours_2026-01-02T03-04-05.678901.jsonl"
    half, halves = folder / ".records_colours-12345678.jsonl.abcd_123.partial", folder / ".artefacts.abcd_123.old"
    stray.write_text("{}\n", "utf-8")
    half.write_text("{", "utf-8")
    halves.mkdir()
    (folder / "artefacts").mkdir()
    assert evaluate().code == 0
    for path, content in ((".notes.md", "mine"), (".git/objects/ab", "mine")):
        assert (folder / path).read_text("utf-8") == content
    assert (model / "samples_my_annotations.jsonl").read_text("utf-8") == "{}\n"
    assert [path.name for path in (stray, half, halves) if path.exists()] == [], "what a killed run left goes"


@pytest.mark.parametrize("seed", [1, 2])
def test_bait_beside_and_below_the_runs_folder_is_untouched_after_every_command(
    seed: int, evaluate: Command, cli: Command, make_method: Callable[..., str], own_tasks: Path, tmp_path: Path
) -> None:
    precious, rng = tmp_path / "precious", random.Random(seed)
    precious.mkdir()
    (precious / "a.txt").write_text("mine", "utf-8")
    flags = ["--plugin", make_method(LEAVES), "--with_baseline"]
    assert evaluate(*flags).code == 0
    folder = run_folder()
    [model] = [path for path in folder.iterdir() if path.is_dir() and path.name != "artefacts"]
    unfinished = Path("out/.unfinished/0123456789abcdef")
    unfinished.mkdir(parents=True)
    before = {precious / "a.txt": "mine"}
    for place in (Path("out"), folder, model, folder / "artefacts", folder / "artefacts/adapter", unfinished):
        before |= bait(place, rng, precious)
    month_ago = time.time() - 60 * 24 * 3600
    os.utime(unfinished, (month_ago, month_ago))
    reproduced = ["--include_path", own_tasks]
    for words in (
        None, None, ["verify", "out"], ["show", "out"], ["compare", "out"], ["leaderboard", "out", "-o", "board.md"],
        ["publish", "out", "--dry-run"], ["reproduce", "out", *reproduced],
        ["apply", *flags[:2], "--model_args", f"pretrained={tmp_path / 'none'}", "--output", "out"],
    ):  # fmt: skip
        done = evaluate(*flags, "--no_cache") if words is None else cli(*words)
        assert "Traceback" not in done.err
        assert {path: told(path) for path in before if os.path.lexists(path)} == before, words
    assert (folder / "artefacts/adapter/rows.txt").read_text("utf-8") == "of the method"
    assert list(precious.iterdir()) == [precious / "a.txt"]


def test_a_link_where_something_of_ours_belongs_is_refused(
    evaluate: Command, make_method: Callable[..., str], tmp_path: Path
) -> None:
    flags, moved = ["--plugin", make_method(LEAVES)], tmp_path / "moved"
    assert evaluate(*flags).code == 0
    folder = run_folder()
    [work] = [path for path in (tmp_path / "cache/methods").iterdir() if path.is_dir()]
    [model] = [path for path in folder.iterdir() if path.is_dir() and path.name != "artefacts"]
    [records] = folder.glob("records_*")
    places = [folder / name for name in ("artefacts", "run.json", "command.txt")]
    places += [folder, folder.parent / f".{folder.name}.lock", work, work.parent / f".{work.name}.lock", records]
    for place in (model, Path("out/.unfinished"), *places):
        is_there = place.exists()
        place.rename(moved) if is_there else moved.mkdir()
        place.symlink_to(moved)
        before = contents(moved)
        done = evaluate(*flags)
        # A records file is known by what was measured, so that is told when it would be written.
        assert done.code == (1 if place == records else 2) and "link" in done.sentence, place
        assert place == records or place.name in done.sentence
        assert contents(moved) == before and place.is_symlink()
        place.unlink()
        moved.rename(place) if is_there else moved.rmdir()


def contents(path: Path) -> dict[Path, bytes]:
    """Return the files at and below a path, with their content."""
    return {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}


def test_apply_refuses_a_link(cli: Command, make_method: Callable[..., str], tiny_model: Path) -> None:
    Path("empty").mkdir()
    Path("made").symlink_to("empty")
    words = ["apply", "--plugin", make_method(LEAVES), "--model_args", f"pretrained={tiny_model}"]
    done = cli(*words, "--output", "made")
    assert done.code == 2 and "is a link" in done.sentence
    assert Path("made").is_symlink() and list(Path("empty").iterdir()) == []


def test_what_a_killed_run_had_moved_away_comes_back(evaluate: Command, make_method: Callable[..., str]) -> None:
    flags = ["--plugin", make_method(LEAVES)]
    assert evaluate(*flags).code == 0
    folder = run_folder()
    (folder / "artefacts/mine.txt").write_text("mine", "utf-8")
    (folder / "artefacts").rename(folder / ".artefacts.abcd_123.old")
    assert evaluate(*flags).code == 0
    assert (folder / "artefacts/mine.txt").read_text("utf-8") == "mine"
    assert not list(folder.glob(".artefacts*"))


def test_only_our_names_go_below_our_folder_and_no_link_is_followed(tmp_path: Path) -> None:
    ours, others = tmp_path / "run", tmp_path / "others"
    for folder in (ours / "deep", others / "deep"):
        folder.mkdir(parents=True)
        (folder / ".a.abcd1234.partial").write_text("x", "utf-8")
    (ours / "way").symlink_to(others / "deep")
    (ours / ".b.abcd1234.old").symlink_to(others)
    (ours / ".c.abcd1234.old").mkdir()
    (ours / ".c.abcd1234.old" / "link").symlink_to(others)
    for path in (ours / "way/.a.abcd1234.partial", ours / ".b.abcd1234.old", ours / "../others/deep/.a.abcd1234.partial",
                 others / "deep/.a.abcd1234.partial", ours / "none/.x.abcd1234.old"):  # fmt: skip
        assert not remove(path, below=ours, named=TEMPORARY, folder=True)
    assert not remove(ours / ".c.abcd1234.old", below=ours, named=TEMPORARY), "a folder has to be meant"
    assert not remove(ours, below=ours, named=re.compile(".*"), folder=True)
    assert remove(ours / ".c.abcd1234.old", below=ours, named=TEMPORARY, folder=True)
    assert remove(ours / "deep/.a.abcd1234.partial", below=ours, named=TEMPORARY)
    assert (others / "deep/.a.abcd1234.partial").exists() and (ours / ".b.abcd1234.old").is_symlink()


def test_names_are_ours_as_a_whole_alone() -> None:
    ours = temporary_of("run.json", "records_")
    for name, pattern, is_ours in (
        (".run.json.abcd_123.partial", ours, True), (".records_x-1.jsonl.abcd_123.old", ours, True),
        (".notes.md.abcd_123.partial", ours, False), (".run.json.partial", ours, False), (".run.json.abcd_123", ours, False),
        ("samples_a_b_2026-01-02T03-04-05.678901.jsonl", samples_of("a_b"), True),
        ("samples_a_b_2026-01-02T03-04-05.678901.jsonl", samples_of("a"), False),
        ("samples_a_2026-01-02T03-04-05.678901.jsonl.bak", samples_of("a"), False),
        ("answers-0.jsonl", ANSWERS, True), (".answers-0.jsonl.torn.abcd_123.partial", ANSWERS, True),
        ("answers-shard3of16.jsonl", ANSWERS, True), (".answers-shards.jsonl.lock", ANSWERS, True),
        ("answers-shard.jsonl", ANSWERS, False),
        ("answers-final.jsonl", ANSWERS, False),
    ):  # fmt: skip
        assert bool(pattern.fullmatch(name)) == is_ours, name


def test_nothing_is_put_over_a_link_or_written_through_it(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for write in (
        lambda: write_atomic(tmp_path / "link", "ours"),
        lambda: put(tmp_path / "mine", tmp_path / "link"),
        lambda: _made(tmp_path / "link"),
    ):
        with pytest.raises(OSError, match="a link is there"):
            write()
    assert (tmp_path / "mine").read_text("utf-8") == "mine" and (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link", "mine"]


def _made(folder: Path) -> None:
    with new_folder(folder) as made:
        (made / "x").write_text("ours", "utf-8")


def test_what_only_the_old_folder_has_is_carried_over(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, name in ((old, "old"), (new, "new")):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep/both").write_text(name, "utf-8")
        (folder / f"deep/{name}").write_text(name, "utf-8")
    (old / "link").symlink_to("nowhere")
    carry_over(old, new)
    assert (new / "deep/both").read_text("utf-8") == "new" and (new / "deep/old").read_text("utf-8") == "old"
    assert os.readlink(new / "link") == "nowhere"
    (old / "deep/new").mkdir()
    with pytest.raises(FileExistsError):
        carry_over(old, new)
