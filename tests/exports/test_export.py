"""Scores taken away: rows for programs, one table for a paper, and a frame that mixes nothing in silence."""

from __future__ import annotations

import csv
import io
import json
import re

import pandas
import pytest
from board_records import HOSTILE, UNUSUAL, baseline, record, write

import harness.records
from harness import HarnessError
from harness.board.board import build
from harness.cli import main
from harness.exports import formats
from harness.exports.paper import paper_table, places_of
from harness.exports.tidy import score_rows
from harness.records.frames import INDEX, frame

MADE_BY_US = r"\\text\w+\{\}|\$\\?[\^{}\\a-z]*\$|\\[&%$#_{}]"
TASKS = {"first": ("acc", True), "second": ("bits_per_byte", False)}


def several():
    """A baseline and a method with two settings and two seeds, on two tasks."""
    found = []
    for task, (name, up) in TASKS.items():
        same = {"task": {"name": task}, "metric": {"name": name, "higher_is_better": up}, "stderr": 0.0123}
        found.append(baseline(0.25, **same, counts={"docs": 400}))
        for steps, value in ((10, 0.5), (20, 0.75)):
            options = {"steps": steps, "also": f"with {steps}", "lists": ["a", "b"], "none": None}
            found += [
                record(value + seed / 100, seed=seed, options=options, **same, counts={"docs": 400}) for seed in (0, 1)
            ]
    return found


@pytest.fixture
def results(tmp_path):
    return write(tmp_path / "results" / "records_all.jsonl", several()).parent


def test_a_paper_has_methods_as_rows_and_tasks_as_columns() -> None:
    """The options that tell rows apart alone, numbers rounded to their error, best of each column marked."""
    table = paper_table(build(several()))
    assert table.columns == ("first, acc ↑", "second, bits_per_byte ↓")
    assert [row.method for row in table.rows] == ["baseline", "p:m (steps=10)", "p:m (steps=20)"]
    first = [row.cells[0] for row in table.rows]
    assert [(cell.value, cell.error, cell.mark) for cell in first] == [
        ("0.250", "0.012", ""), ("0.505", "0.012", "▲"), ("0.755", "0.012", "▲")
    ]  # fmt: skip
    assert [cell.is_best for cell in first] == [False, False, True]
    assert [row.cells[1].is_best for row in table.rows] == [True, False, False]
    assert [row.cells[1].mark for row in table.rows] == ["", "▼", "▼"]
    assert any("mean over 2 seeds" in sentence for sentence in table.caption)
    assert any("first 400" in sentence and "second 400" in sentence for sentence in table.caption)


@pytest.mark.parametrize(
    ("error", "places"), [(0.0123, 3), (0.4, 2), (3.0, 1), (25.0, 0), (0.00001, 6), (1e-12, 8), (0.0, 4), (None, 4)]
)
def test_numbers_have_the_decimals_that_their_error_allows(error, places) -> None:
    assert places_of(error) == places


def test_a_group_stands_for_its_tasks_and_a_chosen_metric_for_the_first() -> None:
    group = record(0.5, task={"name": "whole", "group": True, "members": ["part"]})
    part = record(0.4, task={"name": "part"})
    other = record(0.3, task={"name": "whole", "group": True, "members": ["part"]}, metric={"name": "f1"})
    board = build([group, part, other])
    assert paper_table(board).columns == ("whole, acc ↑",)
    assert paper_table(board, metrics=["f1"]).columns == ("whole, f1 ↑",)
    with pytest.raises(HarnessError, match="no task has a metric 'f2'; there are acc, f1"):
        paper_table(board, metrics=["f2"])


def test_a_task_stays_where_its_group_does_not_stand_for_all_of_its_rows() -> None:
    group = record(0.5, task={"name": "whole", "group": True, "members": ["part"]})
    alone = record(0.4, task={"name": "part"}, method="another")
    shots = record(0.4, task={"name": "part"}, settings={"num_fewshot": 5})
    assert paper_table(build([group, alone])).columns == ("whole, acc ↑", "part, acc ↑")
    assert "part, acc ↑" in paper_table(build([group, shots])).columns
    own = record(0.3, task={"name": "part"}, metric={"name": "f1"})
    assert paper_table(build([group, record(0.4, task={"name": "part"}), own]), metrics=["f1"]).columns == (
        "part, f1 ↑",
    )


def test_models_and_shots_of_one_task_are_kept_apart() -> None:
    records = [
        record(0.5),
        record(0.6, model={"name": "other"}),
        record(0.7, model={"name": "tiny"}, settings={"model_args": {"peft": "mine"}}),
        record(0.8, settings={"num_fewshot": 5}),
    ]
    table = paper_table(build(records))
    assert table.models == ["other, float32", "tiny, adapter mine, float32", "tiny, float32"]
    assert table.columns == ("t (5-shot), acc ↑", "t (0-shot), acc ↑")
    assert formats.to_latex(table).count(r"\multicolumn{3}{l}") == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"settings": {"model_args": {"max_length": 128}}}, 'model_args {"max_length": 128}'),
        ({"model": {"digest": "f" * 16}}, "files ffffffff"),
    ],
)
def test_models_of_one_name_are_rows_of_their_own(more, said) -> None:
    """None of their scores is lost, and each has its own baseline and best."""
    table = paper_table(build([baseline(0.2), record(0.5), baseline(0.3, **more), record(0.7, **more)]))
    assert len(table.models) == 2 and any(said in model for model in table.models)
    assert sorted(cell.value for row in table.rows for cell in row.cells) == ["0.2000", "0.3000", "0.5000", "0.7000"]
    assert sum(cell.is_best for row in table.rows for cell in row.cells) == 2


def test_rows_of_edited_code_and_columns_of_long_settings_are_told_apart() -> None:
    edited = record(0.7, plugin={"name": "p", "version": "2", "code_digest": "other"}, environment={"lm_eval": "2"})
    table = paper_table(build([record(0.5), edited]))
    assert sorted(row.method for row in table.rows) == ["p:m, code 1 c", "p:m, code 2 other"]
    assert "lm-eval 1 and 2, token-harness 1." in table.caption
    drawn = [record(0.5, settings={"gen_kwargs": {"temperature": heat}}) for heat in (0.7, 0.9)]
    assert len(set(paper_table(build(drawn)).columns)) == 2


def test_the_caption_names_options_that_differ_though_rows_do_not_say_so() -> None:
    options = [{"steps": 3, "rate": 0.1}, {"steps": 5, "rate": 0.2}]
    table = paper_table(build([record(0.5, options=one) for one in options]))
    assert [row.method for row in table.rows] == ["p:m (steps=3)", "p:m (steps=5)"]
    assert "Rows of p:m also differ in rate (0.1 at steps=3, 0.2 at steps=5)." in table.caption


def test_what_takes_no_rank_is_never_the_best() -> None:
    cut = record(0.5, options={"a": 1}, counts={"docs": 40, "requests": 40, "truncated_requests": 20})
    cells = [row.cells[0] for row in paper_table(build([baseline(0.2), record(0.5), cut])).rows]
    assert sorted((cell.is_unsound, cell.is_best) for cell in cells) == [(False, False), (False, True), (True, False)]


def test_what_has_no_score_or_no_rank_is_seen() -> None:
    table = paper_table(build([record(None), record(0.5, options={"a": 1}, counts={"docs": 40, "not_finite": 2})]))
    assert [(cell.value, cell.is_unsound) for row in table.rows for cell in row.cells] == [
        ("none", True),
        ("0.5000", True),
    ]
    assert "*none*" in formats.to_markdown(table) and r"\emph{none}" in formats.to_latex(table)


def test_latex_is_booktabs_and_every_row_has_every_column() -> None:
    text = formats.to_latex(paper_table(build(several())))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4 and all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in rows)
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{")] == [1, 1, 1, 1]
    assert r"\textbf{0.755} $\pm$ 0.012$^{\blacktriangle}$" in text and r"bits\_per\_byte" in text


@pytest.mark.parametrize("name", [*HOSTILE, *UNUSUAL, r"\input{/etc/passwd}", "$x^2$", "50% & more", "a_b{c}~#"])
def test_foreign_names_are_text_in_every_form(name) -> None:
    """Nothing in a name is markup, and none ends a cell."""
    records = [baseline(0.25, task={"name": name}), record(0.5, task={"name": name}, options={"file": name}),
               record(0.6, task={"name": name}, options={"file": "other"})]  # fmt: skip
    table, rows = paper_table(build(records)), score_rows(build(records))
    lines = formats.to_markdown(table).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[:5]}) == 1
    body = [line for line in formats.to_latex(table).splitlines() if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 1 for line in body)
    outside = re.sub(MADE_BY_US, "", "".join(body))
    assert not re.findall(r"[%#_~^]", outside) and "\\input" not in outside
    assert len(list(csv.DictReader(io.StringIO(formats.to_csv(rows))))) == 3
    assert len(json.loads(formats.to_json(rows))) == 3


@pytest.mark.parametrize("name", ["[1em] x", "* x"])
def test_no_name_is_an_argument_of_the_line_end_before_it(name) -> None:
    """LaTeX would take ``[`` or ``*`` at the start of a row as an argument of the row end before it."""
    text = formats.to_latex(paper_table(build([baseline(0.25), record(0.5, plugin={"name": name})])))
    assert not re.search(r"(\\\\|rule)\s*[\[*]", text)


def test_scores_are_rows_with_interval_difference_and_rank(results, capsys) -> None:
    """CSV: numbers in full, so that they are read again as they were."""
    assert main(["export", str(results), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 6
    best = next(row for row in rows if row["task"] == "first" and '"steps": 20' in row["options"])
    assert float(best["value"]) == (0.75 + 0.76) / 2 and best["seeds"] == "2" and best["verdict"] == "better"
    assert float(best["low"]) < float(best["value"]) < float(best["high"])
    assert float(best["difference"]) == pytest.approx(0.505) and float(best["difference_p"]) < 0.05
    assert best["rank"] == "1" and best["documents"] == "400"


def test_every_form_is_written_at_once_and_read_again(results, tmp_path, capsys) -> None:
    files = [tmp_path / f"out.{ending}" for ending in ("csv", "json", "parquet", "md", "tex")]
    assert main(["export", str(results), *(part for file in files for part in ("-o", str(file)))]) == 0
    assert capsys.readouterr().out.count("wrote ") == 5
    frames = [pandas.read_csv(files[0]), pandas.read_json(files[1]), pandas.read_parquet(files[2])]
    assert all(list(one["value"]) == pytest.approx(list(frames[0]["value"])) for one in frames)
    assert list(frames[2].columns) == list(frames[0].columns)


def test_runs_are_rows_with_seeds_and_keys(results, capsys) -> None:
    assert main(["export", str(results), "--shape", "runs", "--format", "json", "--task", "first"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["seed"], row["value"]) for row in rows] == [
        ("baseline", 0, 0.25), ("p:m", 0, 0.5), ("p:m", 1, 0.51), ("p:m", 0, 0.75), ("p:m", 1, 0.76)
    ]  # fmt: skip
    assert len({row["key"] for row in rows}) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "third"], "no record has task 'third'; there are first, second"),
        (["-o", "x.xlsx"], "'x.xlsx' ends in none of .csv, .json, .parquet, .md, .markdown, .tex"),
        (["--format", "parquet"], "parquet is no text to print"),
        (["--format", "latex", "--shape", "runs"], "there is no latex of --shape runs"),
        (["--format", "csv", "--shape", "table"], "there is no csv of --shape table"),
        (["--metric", "f1"], "no record has metric 'f1'; there are acc, bits_per_byte"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_sentence(results, arguments, said, capsys) -> None:
    assert main(["export", str(results), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_records_is_no_export(tmp_path, capsys) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "there are no records in" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "missing")]) == 2


def test_a_file_that_cannot_be_written_is_told(results, tmp_path, capsys) -> None:
    (tmp_path / "there").write_text("")
    assert main(["export", str(results), "-o", str(tmp_path / "there" / "x.csv")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_frame_has_a_row_for_each_run_and_says_what_each_is(results) -> None:
    found = harness.records.frame(results)
    assert list(found.index.names) == list(INDEX) and len(found) == 10
    means = found.loc[found.index.get_level_values("task") == "first"].groupby("options")["value"].mean()
    assert sorted(means) == pytest.approx([0.25, 0.505, 0.755])
    assert len(frame([results], task="second", seed="1")) == 2


@pytest.mark.parametrize(
    ("other", "name", "said"),
    [
        (record(0.1, model={"name": "big"}), "model", "these records would mix 2 model values"),
        (record(0.1, model={"quantization": "nf4"}), "weights", "these records would mix 2 weights values"),
        (record(0.1, task={"name": "first"}, metric={"filter": "strict"}), "filter", "first, acc would mix 2 filter"),
        (record(0.1, task={"name": "first"}, settings={"limit": 5}), "questions", "task first would mix 2 questions"),
    ],
)
def test_a_frame_mixes_nothing_unless_it_is_told_to(tmp_path, other, name, said) -> None:
    """A mean over models, quantisations, filters or questions is not computed in silence."""
    first = record(0.5, task={"name": "first"})
    file = write(tmp_path / "records_x.jsonl", [first, other])
    with pytest.raises(HarnessError, match=said):
        frame(file)
    assert len(frame(file, mixes=("model", "weights", "filter", "questions"))) == 2
    with pytest.raises(HarnessError, match="know no 'models'"):
        frame(file, mixes=("models",))


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (record(0.1, seed=1, plugin={"code_digest": "other"}), "code"),
        (record(0.1, method="n", settings={"model_args": {"max_length": 128}}), "arguments"),
    ],
)
def test_a_frame_mixes_no_code_of_a_method_and_no_arguments_of_a_model(tmp_path, other, name) -> None:
    file = write(tmp_path / "records_x.jsonl", [record(0.5), other])
    with pytest.raises(HarnessError, match=f"would mix 2 {name} values"):
        frame(file, mixes=("questions",))
    assert len(frame(file, mixes=("questions", name))) == 2


def test_a_line_that_is_no_record_is_told_by_a_frame(tmp_path) -> None:
    file = write(tmp_path / "records_x.jsonl", [record(0.5)])
    file.write_text(file.read_text(encoding="utf-8") + "broken\nagain\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"left out: .*line 2.*, and 1 more"):
        assert len(frame(file)) == 1


def test_a_seed_without_the_metric_is_told_when_the_metric_is_chosen(tmp_path, capsys) -> None:
    records = [record(0.5, seed=seed, metric={"name": name}) for seed, name in ((0, "acc"), (0, "f1"), (1, "acc"))]
    file = write(tmp_path / "records_x.jsonl", records)
    assert main(["export", str(file), "--metric", "f1", "--shape", "scores", "--format", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["metric"], row["unranked"]) == ("f1", "no record of it (1 of 2 seeds)")


def test_a_frame_tells_what_it_was_asked_wrongly(results, tmp_path) -> None:
    with pytest.raises(HarnessError, match="no record has task 'third'; there are first, second"):
        frame(results, task="third")
    with pytest.raises(HarnessError, match="records have no column 'taks'"):
        frame(results, taks="first")
    with pytest.raises(HarnessError, match="no records"):
        frame(write(tmp_path / "records_none.jsonl", []))
