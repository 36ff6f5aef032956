"""A comparison on a terminal, as Markdown and as JSON: all three say the same, and foreign text stays text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compared_runs import write_run

from harness.cli import main
from harness.comparing.comparison import Request, compare
from harness.comparing.sides import Pool, find_sides
from harness.comparing.tables import to_json, to_markdown, to_text

VALUES = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
BETTER = [1.0] * 8
HOSTILE = [
    "a|b", "a||b\\|c", "<script>alert(1)</script>", "</td></table>", "<!-- x", "&lt;script&gt;",
    "[x](javascript:alert(1))", "![x](http://evil/x.png)", "[link=http://evil]x[/link]", "model[/b]", "`code`", "**bold**",
    "a\n\n# title", "a\r| b |", "a\u2028b", "\x1b[31mred\x1b[0m", "\x1b]8;;http://evil\x07x", "\x08\x08x", "\u202egnp",
    "a\u200bb",     "| --- |", "$x$", "\\", "\ud83d", "x\0y", "<http://evil>", ":smile:", "x" * 5_000,
]  # fmt: skip


def forms(folder: Path) -> dict[str, str]:
    comparison = compare(find_sides(["baseline", "m"], Pool(folder)), Request())
    return {"terminal": to_text(comparison), "markdown": to_markdown(comparison), "json": to_json(comparison)}


def write_both(folder: Path, answers: list[str] | None = None) -> None:
    write_run(folder, {"t": {"acc": VALUES}}, answers=answers)
    write_run(folder, {"t": {"acc": BETTER}}, method="m", answers=answers)


def test_all_forms_say_the_same(tmp_path: Path) -> None:
    write_both(tmp_path)
    shown = forms(tmp_path)
    [row] = json.loads(shown["json"])["comparisons"]
    for form in ("terminal", "markdown"):
        for text in (
            f"{row['difference']:+.4f}",
            f"{row['p']:.4f}",
            f"{row['detectable']:.4f}",
            "5, 0",
            row["verdict"],
        ):
            assert text in shown[form], form
        assert "tokens trained" in shown[form] and "640" in shown[form]
        assert "Question t 1?" in shown[form]


def test_json_has_every_number_and_no_nan(tmp_path: Path) -> None:
    write_both(tmp_path)
    content = json.loads(forms(tmp_path)["json"], parse_constant=pytest.fail)
    assert (content["form"], content["version"], content["alpha"]) == ("token-harness comparison", 1, 0.05)
    assert [side["label"] for side in content["sides"]] == ["baseline", "m"]
    [row] = content["comparisons"]
    assert {"task", "metric", "first", "second", "difference", "low", "high", "p", "p_holm", "detectable"} <= set(row)
    assert row["changes"][0]["second_answer"] == "right"


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_stays_text(tmp_path: Path, text: str) -> None:
    text = text.replace("\ud83d", "�")  # half of a character is no text, and refused when it is read
    write_both(tmp_path, answers=[text] * 8)
    shown = forms(tmp_path)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u202e\u200b]", shown["terminal"] + shown["markdown"])
    assert (
        "<script" not in shown["markdown"]
        and "<http" not in shown["markdown"]
        and "](" not in shown["markdown"].replace("\\](", "")
    )
    tables = [line for line in shown["markdown"].splitlines() if line.startswith("|")]
    columns = [len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) for line in tables]
    assert len(set(columns[-7:])) == 1, "no answer ends a cell"
    for form in shown.values():
        form.encode("ascii" if form is shown["json"] else "utf-8")
    assert json.loads(shown["json"])["comparisons"][0]["changes"][0]["first_answer"][:300] == text[:300]


def test_seeds_have_a_table_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": VALUES}})
    for seed in (4, 5):
        write_run(tmp_path, {"t": {"acc": BETTER if seed == 4 else VALUES}}, method="m", seed=seed)
    shown = forms(tmp_path)
    assert "## Variation over seeds" in shown["markdown"]
    assert "| t | acc | m | 2 | 0.6875 | 0.4419 |" in shown["markdown"]
    assert "4: 1.0000, 5: 0.3750" in shown["terminal"]


def test_a_narrow_terminal_loses_no_number(tmp_path: Path) -> None:
    write_both(tmp_path)
    code = "import sys; from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "compare", "m@baseline", "--records", str(tmp_path), "--documents", "0"]
    environment = {**os.environ, "COLUMNS": "60"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "+0.6250" in done.stdout and "…" not in done.stdout


@pytest.mark.parametrize("form", ["terminal", "markdown", "json"])
def test_output_is_written_whole_to_a_file(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_both(tmp_path / "results")
    words = [
        "m@baseline",
        "--records",
        str(tmp_path / "results"),
        "--format",
        form,
        "--output",
        str(tmp_path / "new" / "out"),
    ]
    assert main(["compare", *words]) == 0
    assert capsys.readouterr().out == ""
    assert "token" in (tmp_path / "new" / "out").read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_both(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    words = ["m@baseline", "--records", str(tmp_path), "--format", "json", "--output", str(tmp_path / "file" / "x")]
    assert main(["compare", *words]) == 2
    assert capsys.readouterr().err.startswith("harness: cannot write")


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    shown = capsys.readouterr().out
    assert "harness compare stochastok@baseline --records results" in shown
    assert "too few documents to tell" in shown
