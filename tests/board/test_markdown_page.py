"""The leaderboard: records in, Markdown out, nothing compared that differs, nothing foreign that becomes markup."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.board.markdown_page import render
from harness.records.record import Record

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]

HOSTILE = [
    "a|b", "a||b\\|c", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></table>", "<!-- x", "&lt;script&gt;",
    "[x](javascript:alert(1))", "![x](http://evil/x.png)", "[x]: javascript:alert(1)", "[link=http://evil]x[/link]", "model[/b]",
    "`code`", "``x", "**bold**", "_it_", "~~x~~", "# title", "a\n\n# title", "a\r| b |", "a\u2028b", "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil\x07x", "\x08\x08x", "\u202egnp", "a\u200bb", "---", "- x", "1. x", "> x", "$x$", "\\", "\\|", "| --- |",
    "=HYPERLINK(1)", "\ud83d", "x\0y", "<http://evil>", "<a@evil.example>",
]  # fmt: skip


def record(
    value: float = 0.5, *, method: str = "m", options: dict[str, Any] | None = None, seed: int = 0,
    task_name: str = "t", model_name: str = "tiny", plugin_name: str | None = "p", **more: Any,
) -> Record:  # fmt: skip
    """Return a record of which a test says only what it is about."""
    content: dict[str, Any] = {
        "created": "2026-01-01T00:00:00Z",
        "plugin": {"name": plugin_name, "version": "1", "code_digest": "c"},
        "method": {"name": method, "options": options or {}},
        "model": {"name": model_name, "digest": "0123456789abcdef", "dtype": "float32"},
        "tokenizer": {"digest": "d", "vocabulary": 400},
        "task": {"name": task_name, "version": "1.0", "docs_digest": "dd"},
        "metric": {"name": "acc", "higher_is_better": True},
        "value": value,
        "counts": {"docs": 40},
        "seeds": {"random": seed, "numpy": seed, "torch": seed, "fewshot": seed},
        "environment": dict.fromkeys(
            ("python", "torch", "transformers", "lm_eval", "peft", "harness", "platform", "device"), "1"
        ),
        "batch_size": "8",
    }
    for name, part in more.items():
        content[name] = content[name] | part if isinstance(content.get(name), dict) else part
    return Record.model_validate(content)


def baseline(value: float = 0.25, **more: Any) -> Record:
    return record(value, method="baseline", plugin_name=None, **more)


def rows(page: str) -> list[list[str]]:
    """Return the cells of every table row of a page, split where Markdown splits."""
    lines = [line for line in page.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_baseline_comes_first_and_is_marked() -> None:
    page = render([record(0.5, method="a"), baseline(0.25)])
    header, first, second = rows(page)
    assert header == ["method", "seeds", "acc ↑"]
    assert first == ["**baseline**", "1", "0.2500"]
    assert second == ["p:a", "1", "0.5000"]


def test_values_are_averaged_over_seeds_with_their_deviation() -> None:
    values = [0.5, 0.6, 0.9]
    page = render([record(value, seed=seed, stderr=0.1 * seed) for seed, value in enumerate(values)])
    [_, row] = rows(page)
    assert row == ["p:m", "3", f"{statistics.fmean(values):.4f} ± 0.1000 (sd {statistics.stdev(values):.4f})"]


def test_a_measurement_repeated_counts_once_as_it_stands_last_in_the_ledger_whatever_the_clock_says() -> None:
    for first, second in (("2026-01-01", "2026-01-02"), ("2026-01-02", "2026-01-01"), ("1970-01-01", "2100-01-01")):
        page = render([record(0.1, created=f"{first}T00:00:00Z"), record(0.7, created=f"{second}T00:00:00Z")])
        assert rows(page)[1] == ["p:m", "1", "0.7000"]
        assert "1 record replaced by a later one of the same measurement, 1 of them with another value" in page


def test_results_of_edited_code_are_not_averaged_with_those_before() -> None:
    before = record(0.1, plugin={"code_digest": "a"}, created="2026-01-01T00:00:00Z")
    after = record(0.7, plugin={"code_digest": "b"}, created="2026-01-02T00:00:00Z")
    page = render([before, after])
    assert "0.4000" not in page, "the mean of two versions of the code is no result of either"
    assert "0.7000" in page


def test_options_that_differ_become_columns_and_others_do_not() -> None:
    page = render(
        [
            baseline(),
            record(0.5, options={"steps": 1, "rate": 0.1, "file": None}),
            record(0.6, options={"steps": 2, "rate": 0.1, "file": None}),
        ]
    )
    header, first, *others = rows(page)
    assert header == ["method", "steps", "seeds", "acc ↑"]
    assert first == ["**baseline**", "", "1", "0.2500"]
    assert sorted(row[1] for row in others) == ["1", "2"]


@pytest.mark.parametrize(
    "difference",
    [
        {"model": {"digest": "other"}},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"quantization": "nf4"}},
        {"task": {"version": "2.0"}},
        {"task": {"docs_digest": "other"}},
        {"settings": {"num_fewshot": 2}},
        {"settings": {"limit": 10}},
        {"settings": {"system_instruction": "Be brief."}},
        {"settings": {"gen_kwargs": {"temperature": 1}}},
    ],
    ids=json.dumps,
)
def test_what_cannot_be_compared_stands_in_tables_of_its_own(difference: dict[str, Any]) -> None:
    page = render([baseline(), record(0.9, **difference)])
    assert page.count("\n## ") == 2
    assert [len(row) for row in rows(page)] == [3, 3, 3, 3]
    titles = re.findall(r"^## .*\n\n.*$", page, flags=re.MULTILINE)
    assert len(set(titles)) == 2, "a reader cannot tell the two tables apart"


def test_metrics_are_columns_with_their_direction() -> None:
    page = render(
        [
            record(0.5),
            record(3.0, metric={"name": "perplexity", "higher_is_better": False}),
            record(0.1, metric={"name": "f1", "filter": "strict", "higher_is_better": None}),
        ]
    )
    assert rows(page)[0] == ["method", "seeds", "acc ↑", "perplexity ↓", "f1 (strict)"]
    assert rows(page)[1] == ["p:m", "1", "0.5000", "3.0000", "0.1000"]


def test_groups_come_before_their_tasks_and_models_stay_apart() -> None:
    page = render(
        [record(task_name="a_task"), record(task_name="z_group"), record(task_name="a_task", model_name="big")]
    )
    assert re.findall(r"^## (.*)$", page, flags=re.MULTILINE) == ["a_task · big", "a_task · tiny", "z_group · tiny"]
    page = render([record(task_name="a_task"), record(task_name="z_group", task={"group": True})])
    assert re.findall(r"^## (.*)$", page, flags=re.MULTILINE) == ["z_group · tiny", "a_task · tiny"]


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\ud83d" not in name])
def test_a_hostile_name_stays_text_in_one_cell(name: str) -> None:
    page = render(
        [
            baseline(task_name=name, model_name=name),
            record(
                0.5,
                method=name,
                plugin_name=name,
                options={name: 1, "x": name},
                task_name=name,
                model_name=name,
                metric={"filter": name},
            ),
            record(
                0.6, method="m", options={name: 2, "x": "y"}, task_name=name, model_name=name, metric={"name": name}
            ),
        ]
    )
    assert page.count("\n## ") == 1
    assert len([line for line in page.splitlines() if line.startswith("# ")]) == 1
    table = rows(page)
    assert len({len(row) for row in table}) == 1, table
    assert len(table) == 4
    assert all(character == "\n" or character.isprintable() for character in page)
    assert "<" not in page.replace("<U+", "")
    assert not re.search(r"(?<!\\)\]\(", page)
    assert not re.search(r"(?<!\\)`", page)
    assert not re.search(r"(?<!\\)!?\[[^\]]*(?<!\\)\]", page)


def test_a_page_of_no_records_says_so() -> None:
    assert render([]) == "# Leaderboard\n\nNo records yet.\n"


def test_the_same_records_in_any_order_give_the_same_page() -> None:
    records = [
        record(0.1 * n, seed=n % 3, method=f"m{n % 2}", task_name=f"t{n % 2}", options={"steps": n % 2})
        for n in range(6)
    ]
    records += [baseline(task_name="t0"), baseline(task_name="t1")]
    assert render(records) == render(records[::-1])


def test_records_are_read_without_the_plugin_that_made_them(cli: Command) -> None:
    Path("results").mkdir()
    lines = [baseline().to_line(), record(0.75, method="gone", plugin_name="uninstalled").to_line()]
    Path("results/records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for words in (["leaderboard"], ["leaderboard", "results"], ["leaderboard", "results/records.jsonl"]):
        shown = cli(*words)
        assert (shown.code, shown.err) == (0, "")
        assert "| uninstalled:gone | " in shown.out and "**0.7500**" in shown.out
        assert "| uninstalled:gone | 1 | 0.7500 |" in cli(*words, "--task", "all").out
    assert cli("leaderboard", "--output", "board.md").out == "wrote board.md\n"
    written = Path("board.md").read_text(encoding="utf-8")
    assert (
        written.startswith(shown.out.partition("The tables of each task")[0])
        and "| uninstalled:gone | 1 | 0.7500 |" in written
    )


def test_one_bad_line_is_told_and_the_rest_is_shown(cli: Command) -> None:
    Path("records.jsonl").write_text(baseline().to_line() + "\nbroken\n" + record().to_line() + "\n", encoding="utf-8")
    shown = cli("leaderboard", "records.jsonl", "--output", "board.md")
    assert shown.code == 1
    assert shown.sentence.startswith("harness: records.jsonl, line 2: ")
    assert "| p:m | 1 | 0.5000 |" in Path("board.md").read_text(encoding="utf-8")


def test_a_folder_that_is_not_there_and_one_that_cannot_be_written_are_told(cli: Command) -> None:
    missing = cli("leaderboard", "nowhere")
    assert (missing.code, missing.sentence) == (2, "harness: no records at 'nowhere': there is no such file or folder")
    Path("records.jsonl").write_text(record().to_line() + "\n", encoding="utf-8")
    refused = cli("leaderboard", "records.jsonl", "--output", "records.jsonl/board.md")
    assert refused.code == 2
    assert "records.jsonl/board.md" in refused.sentence
    assert Path("records.jsonl").read_text(encoding="utf-8") == record().to_line() + "\n"


def test_a_hostile_name_is_harmless_in_the_table_at_the_end_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    from harness.run.summary import print_summary

    for name in (
        "model[/b]",
        "[bold]x",
        "[link=http://evil]x[/link]",
        "\x1b[31mred",
        "a\nb",
        "\x1b]8;;http://evil\x07x",
    ):
        print_summary(
            [record(0.5, method=name, task_name=name, model_name=name, metric={"name": name})],
            [baseline(task_name=name, model_name=name)],
        )
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert name.replace("\x1b", "␛").replace("\n", "␊").replace("\x07", "␇")[:8] in shown


def test_the_summary_shows_the_difference_to_the_baseline_on_the_same_board(capsys: pytest.CaptureFixture[str]) -> None:
    from harness.run.summary import print_summary

    print_summary(
        [record(0.5, stderr=0.125)], [baseline(0.75), baseline(0.1, task_name="other"), baseline(0.2, model_name="big")]
    )
    [line] = [line for line in capsys.readouterr().out.splitlines() if "│ t " in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "t",
        "acc ↑",
        "m",
        "40",
        "0.5000",
        "± 0.1250",
        "0.7500",
        "-0.2500",
    ]


def test_the_ending_of_the_file_says_which_page_it_gets(cli: Command) -> None:
    Path("records.jsonl").write_text(record().to_line() + "\n", encoding="utf-8")
    shown = cli("leaderboard", "records.jsonl", "-o", "a.md", "-o", "b.html", "--no-samples")
    assert (shown.code, shown.out, shown.err) == (0, "wrote a.md\nwrote b.html\n", "")
    assert Path("a.md").read_text(encoding="utf-8").startswith("# Leaderboard\n")
    assert Path("b.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert cli("leaderboard", "records.jsonl", "--format", "html").out == Path("b.html").read_text(encoding="utf-8")
    refused = cli("leaderboard", "records.jsonl", "-o", "a.pdf")
    assert (refused.code, Path("a.pdf").exists()) == (2, False)
    assert "'a.pdf' ends neither in .md nor in .html" in refused.sentence
    assert cli("leaderboard", "records.jsonl", "-o", "a.pdf", "--format", "markdown").code == 0


def test_a_leaderboards_folder_is_rendered_and_checked(cli: Command) -> None:
    from harness.records import ledger

    ledger.append(Path("board/records/p.jsonl"), [baseline(), record()])
    old = cli("leaderboard", "board", "--check")
    assert old.code == 1
    assert "README.md: it is missing; `harness leaderboard board --render` writes it" in old.err
    assert cli("leaderboard", "board", "--render").code == 0
    current = cli("leaderboard", "board", "--check")
    assert (current.code, current.out) == (0, "board: 2 records in 1 file, in order\n")
    refused = cli("leaderboard", "board", "--check", "-o", "x.md")
    assert (refused.code, "--check takes no --output" in refused.sentence) == (2, True)
    assert "is no leaderboard's folder" in cli("leaderboard", "board/records", "--check").sentence


def test_repair_sets_bad_lines_aside_and_keeps_the_old_file(cli: Command) -> None:
    file = Path("results/records.jsonl")
    file.parent.mkdir()
    file.write_text(baseline().to_line() + "\nbroken\n" + record().to_line() + "\n", encoding="utf-8")
    old = file.read_bytes()
    shown = cli("leaderboard", "results", "--repair")
    assert shown.code == 0
    assert "results/records.jsonl, line 2: " in shown.out
    assert "2 lines kept, 1 moved to records.jsonl.torn" in shown.out
    assert file.read_text(encoding="utf-8") == baseline().to_line() + "\n" + record().to_line() + "\n"
    assert Path("results/records.jsonl.torn").read_bytes() == b"broken\n"
    assert [path.read_bytes() for path in Path("results").glob("*.backup-*")] == [old]
    assert "nothing to repair" in cli("leaderboard", "results", "--repair").out
    assert cli("leaderboard", "results").code == 0


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\ud83d" not in name])
def test_a_reason_for_no_rank_and_a_bad_line_stay_text(name: str) -> None:
    from harness.board import board
    from harness.board.markdown_page import render_board

    dead = record(None, method=name, plugin_name=name, metric={"name": name}, status="invalid")
    built = board.build([baseline(metric={"name": name}), dead], problems=[name])
    for page, headings in (
        (render_board(built, with_summary=False), 2),
        (render_board(built, tables=""), 3),
    ):
        assert len({len(row) for row in rows(page)}) == 1
        assert "<" not in page.replace("<U+", "")
        assert all(character == "\n" or character.isprintable() for character in page)
        assert len([line for line in page.splitlines() if line.startswith("#")]) == headings


def test_a_partial_run_says_so_and_gets_no_place_beside_whole_ones() -> None:
    page = render([baseline(), record(0.9, settings={"limit": 10}, task={"docs_digest": "less"})])
    assert "Part of the task: not to be ranked with results on all of it." in page
    assert "1 row not ranked: only part of the task was asked" in page


def test_a_mark_says_which_rows_are_shown_to_differ_from_the_baseline() -> None:
    page = render([baseline(0.5, stderr=0.01), record(0.6, stderr=0.01), record(0.505, method="same", stderr=0.01)])
    assert [row[-1] for row in rows(page)[1:]] == ["0.5000 ± 0.0100", "0.6000 ± 0.0100 ▲", "0.5050 ± 0.0100"]
    assert "▲ and ▼: better and worse than the baseline" in page
