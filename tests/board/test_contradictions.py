"""A score that its samples, its tasks or its own counts contradict is shown marked and last, and never ranked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_records import TASKS, group_record, record, rows_of, write_samples

from harness.board import board, page
from harness.board.tables import Board, Row
from harness.cli import main
from harness.comparing import tables as compared_tables
from harness.comparing.comparison import DOES_NOT_FOLLOW, Request, compare
from harness.comparing.sides import Pool, find_sides
from harness.records import ledger
from harness.records.record import Record

ACC = ("acc", "none")
Change = Callable[[Path, list[Record]], list[Record]]


def _method(name: str) -> dict[str, Any]:
    return {
        "run": f"{name}-0123456789",
        "plugin": {"name": name, "distribution": name, "version": "1", "code_digest": "ef"},
        "method": {"name": name, "options": {}},
        "model": {"name": "tiny", "digest": "ab" * 32, "dtype": "float32", "weights_changed": 32},
        "command": f"harness eval --tasks colours --plugin {name} --model_args pretrained=./tiny --seed 0,1234,1234,1234",
    }


def _of(folder: Path, name: str, bias: float) -> list[Record]:
    """Return the records of two tasks and their group, and write their samples."""
    more = {} if name == "baseline" else _method(name)
    made = []
    for task, values in TASKS.items():
        rows = rows_of(task, bias=bias)
        made.append(record(task, [float(v) for v in values], rows, samples=write_samples(folder, rows), **more))
    return [*made, Record.model_validate(group_record().content() | more)]


def write_board(folder: Path, change: Change) -> Path:
    """Write a leaderboard's folder of a baseline, an honest method and one whose records are changed, digests anew."""
    records = folder / "records"
    records.mkdir(parents=True)
    made = [*_of(records, "baseline", 0.0), *_of(records, "honest", 0.125)]
    ledger.append(records / "x.jsonl", [*made, *change(records, _of(records, "forged", 0.25))])
    return folder


def _edited(place: int, **fields: Any) -> Change:
    def change(_: Path, made: list[Record]) -> list[Record]:
        content = made[place].content()
        for name, value in fields.items():
            content[name] = content[name] | value if isinstance(value, dict) else value
        return [*made[:place], Record.model_validate(content), *made[place + 1 :]]

    return change


def _other_samples(folder: Path, made: list[Record]) -> list[Record]:
    path = folder / made[0].samples.path  # type: ignore[union-attr]
    other = write_samples(folder, rows_of("colours_warm", bias=0.5))
    path.write_bytes((folder / other["path"]).read_bytes())
    return made


def _damaged(folder: Path, made: list[Record]) -> list[Record]:
    path = folder / made[0].samples.path  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:-20])
    return made


def _wrong_choice(folder: Path, made: list[Record]) -> list[Record]:
    rows = rows_of("colours_warm", bias=0.25)
    rows[1]["acc"] = 1.0
    values = [row["acc"] for row in rows]
    forged = record("colours_warm", values, rows, samples=write_samples(folder, rows), **_method("forged"))
    return [forged, *made[1:]]


def _copied(_: Path, made: list[Record]) -> list[Record]:
    samples = write_samples(_, rows_of("colours_warm", bias=0.125))
    return [Record.model_validate(made[0].content() | {"samples": samples}), *made[1:]]


KINDS: dict[str, tuple[Change, str, str]] = {
    "value": (_edited(0, value=0.99, stderr=0.001), "colours_warm", "value is 0.99, while its samples give 0.6"),
    "error": (_edited(0, stderr=0.001), "colours_warm", "standard error is 0.001, while its samples give"),
    "documents": (_edited(0, counts={"docs": 50}, task={"size": 50}), "colours_warm", "holds 5 documents, the record says 50"),
    "requests": (_edited(0, counts={"requests": 90}), "colours_warm", "holds 10 requests, the record says 90"),
    "other samples": (_other_samples, "colours_warm", "the SHA-256 differs"),
    "other digest": (_edited(0, samples={"sha256": "0" * 64}), "colours_warm", "the SHA-256 differs"),
    "rows": (_edited(0, samples={"rows": 6}), "colours_warm", "has 5 rows, the record says 6"),
    "damaged": (_damaged, "colours_warm", "its samples cannot be read"),
    "wrong choice": (_wrong_choice, "colours_warm", "acc is 1, while the likeliest choice is 1 and the right one 0"),
    "copied": (_copied, "colours_warm", "byte for byte, those of honest"),
    "not finite": (_edited(0, counts={"not_finite": 3}), "colours_warm", "3 requests have no finite score"),
    "out of bounds": (_edited(0, value=1.5), "colours_warm", "value 1.5 is none of acc"),
    "group": (_edited(2, value=0.99), "colours", "value is 0.99, while its 2 tasks give 0.5"),
    "task of a group": (_edited(0, value=0.99), "colours", "its task colours_warm does not: value is 0.99"),
}  # fmt: skip


def _rows(built: Board, task: str) -> list[Row]:
    [table] = [table for table in built.tables if table.first.task.name == task]
    return list(table.rows)


@pytest.mark.parametrize(("change", "task", "reason"), KINDS.values(), ids=list(KINDS))
def test_a_contradicted_score_is_never_ranked(
    change: Change, task: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_board(tmp_path / "board", change)
    assert main(["leaderboard", str(folder), "--render"]) == 1
    err = capsys.readouterr().err
    [said] = [line for line in err.splitlines() if line.startswith(f"harness: {task}, acc, forged, tiny: ")]
    assert reason in said

    built = board.build_reading(ledger.read(folder / "records"))
    rows = _rows(built, task)
    assert [row.label for row in rows] == ["baseline", "honest", "forged"]
    score = rows[-1].scores[ACC]
    assert score.is_contradicted and (score.rank, score.difference) == (None, None) and reason in score.unranked
    assert [row.scores[ACC].rank for row in rows[:-1]] == [1, 1], "it does not push others down either"

    markdown = (folder / "README.md").read_text(encoding="utf-8")
    section = markdown[markdown.index(f"## {task} ") :].partition("\n## ")[0]
    [line] = [line for line in section.splitlines() if line.startswith("| forged")]
    assert re.fullmatch(r"\| forged ✗ \| 1 \| \*[0-9.]+\* ✗ \|", line) and section.index(line) > section.index(
        "| honest"
    )
    assert "✗: contradicted by" in markdown and "Not ranked, forged: " in section
    for name in ("index.html", "pages/forged.html", "pages/honest.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in text, "a page is the same wherever its folder lies"
        assert '<p class="warning"><bdi>' in text and "contradicted by samples, tasks or counts" in text, name
    island = json.loads(page.render(built).partition('id="board">')[2].partition("</script>")[0])
    [table] = [table for table in island["tables"] if table["task"] == task]
    own, [cells], _ = table["rows"][-1]
    assert own[0][1] == "forged" and cells[0] == [None, "✗", "", "unranked"] and cells[2] == [None, ""]
    assert "±" not in cells[1][2] and cells[1][3] == "unranked"


def test_a_line_that_does_not_give_its_digest_is_told_when_the_folder_is_rendered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_board(tmp_path / "board", lambda _, made: made)
    assert main(["leaderboard", str(folder), "--render"]) == 0
    file = folder / "records" / "x.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[6] = lines[6].replace('"value": 0.6', '"value": 0.99')
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["leaderboard", str(folder), "--render"]) == 1
    assert "line 7: its content does not give its digest" in capsys.readouterr().err
    assert "0.9900" not in (folder / "README.md").read_text(encoding="utf-8")


def test_what_follows_is_ranked_and_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_board(tmp_path / "board", lambda _, made: made)
    assert main(["leaderboard", str(folder), "--render"]) == 0
    assert capsys.readouterr().err == ""
    built = board.build_reading(ledger.read(folder / "records"))
    assert all(score.rank == 1 for score in built.scores())
    assert "✗" not in (folder / "README.md").read_text(encoding="utf-8")


def test_one_seed_that_is_contradicted_takes_the_rank_from_all(tmp_path: Path) -> None:
    def two_seeds(_: Path, made: list[Record]) -> list[Record]:
        seeds = {"random": 7, "numpy": 1234, "torch": 1234, "fewshot": 1234}
        return [
            *made,
            Record.model_validate(made[0].content() | {"seeds": seeds, "value": 0.9, "run": "forged-7", "stderr": 0.1}),
        ]

    built = board.build_reading(ledger.read(write_board(tmp_path / "board", two_seeds) / "records"))
    score = _rows(built, "colours_warm")[-1].scores[ACC]
    assert score.rank is None and score.unranked == "value is 0.9, while its samples give 0.6 (1 of 2 seeds)"


def test_a_contradicted_baseline_is_not_bold_and_no_ground_for_a_difference(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    [warm, *others] = _of(folder, "baseline", 0.0)
    warm = Record.model_validate(warm.content() | {"value": 0.1})
    ledger.append(folder / "x.jsonl", [warm, *others, *_of(folder, "honest", 0.125)])
    built = board.build_reading(ledger.read(folder))
    rows = _rows(built, "colours_warm")
    assert [row.label for row in rows] == ["honest", "baseline"]
    assert rows[0].scores[ACC].difference is None and rows[0].scores[ACC].rank == 1
    from harness.board.markdown_page import render_board

    assert "| baseline ✗ | 1 | *0.1000* ✗ |" in render_board(built)


def test_compare_says_which_score_does_not_follow_and_gives_no_difference_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_board(tmp_path / "board", _edited(0, value=0.99, stderr=0.001))
    words = ["compare", "baseline", "forged", "--records", str(folder / "records")]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "colours_warm, acc, forged: value is 0.99, while its samples give 0.6" in said.err
    sides = find_sides(["baseline", "forged"], Pool(folder / "records"))
    rows = {row.task: row for row in compare(sides, Request()).rows}
    assert {task: row.verdict == DOES_NOT_FOLLOW for task, row in rows.items()} == {
        "colours": True, "colours_warm": True, "colours_cold": False
    }  # fmt: skip
    warm = rows["colours_warm"]
    assert (warm.low, warm.high, warm.p, warm.p_holm, warm.up) == (None, None, None, None, None)
    assert rows["colours_cold"].p_holm == rows["colours_cold"].p, "it is in no family"
    assert DOES_NOT_FOLLOW in compared_tables.to_markdown(compare(sides, Request()))


def test_show_says_which_score_does_not_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_board(tmp_path / "board", _edited(0, value=0.99, stderr=0.001))
    assert main(["show", str(folder / "records"), "--run", "forged"]) == 1
    said = capsys.readouterr()
    assert "does not follow" in said.out and "value is 0.99, while its samples give 0.6" in said.out
    assert "colours_warm, acc, forged: value is 0.99" in said.err
    assert main(["show", str(folder / "records"), "--run", "honest"]) == 0
    assert capsys.readouterr().err == ""
