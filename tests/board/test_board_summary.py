"""A board's answer over all tasks: ranks, wins and losses, what is retained, costs, and what is said where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from board_records import measured, record, write
from small_runs import Command

from harness.board import board, markdown_page, page, settings, summary_grid
from harness.board.seed_files import SEED, SeedFiles
from harness.board.settings import Settings
from harness.board.summary import Block, Standing, summarise
from harness.board.summary_rows import summary_rows
from harness.errors import HarnessError
from harness.records import ledger
from harness.records.record import Record
from harness.verifying import checking


def of_task(name: str, value: float, method: str = "baseline", **more: Any) -> Record:
    """Return a record of one of several tasks."""
    return record(value, method=method, task={"name": name}, stderr=0.01, **more)


def only(records: list[Record], **more: Any) -> Block:
    """Return the one block of some records."""
    [block] = summarise(board.build(records), **more)
    return block


def standing(block: Block, method: str, model: str = "tiny, float32") -> Standing:
    """Return the one row of a method."""
    [found] = [one for one in block.models[model] if one.method == method]
    return found


def three_tasks() -> list[Record]:
    """Return records of the untouched model and two methods on three tasks and a text."""
    records = []
    for name, values in {"a": (0.5, 0.7, 0.6), "b": (0.5, 0.8, 0.4), "c": (0.5, 0.6, 0.501)}.items():
        records += [of_task(name, value, method) for value, method in zip(values, ("baseline", "x", "y"), strict=True)]
    for value, method in ((1.0, "baseline"), (1.25, "x"), (0.8, "y")):
        records.append(of_task("plain_text", value, method, metric={"name": "bits", "higher_is_better": False}))
    return records


def test_methods_are_ranked_over_tasks_and_counted_against_the_untouched_model() -> None:
    block = only(three_tasks())
    assert [one.method for one in block.models["tiny, float32"]] == ["p:x", "p:y", "baseline"]
    x, y, untouched = block.models["tiny, float32"]
    assert [one.rank and one.rank.mean for one in (x, y, untouched)] == pytest.approx(
        [1, (2 + 3 + 2) / 3, (3 + 2 + 3) / 3]
    )
    assert (x.wins, x.losses, x.ties) == (3, 0, 0) and (y.wins, y.losses, y.ties) == (1, 1, 1)
    assert [n for n, column in enumerate(block.columns) if column.task == "plain_text"] == list(block.retained)
    assert x.retention is not None and (x.retention.share, x.retention.task) == (pytest.approx(0.8), "plain_text")
    assert y.retention is not None and y.retention.share == pytest.approx(1.25) and untouched.retention is None


def test_the_correction_is_over_all_rows_and_tasks() -> None:
    records = [of_task("a", 0.5), of_task("a", 0.535, "x")]
    alone = only(records)
    assert standing(alone, "p:x").wins == 1
    more = [of_task(f"n{n}", value, method) for n in range(9) for value, method in ((0.5, "baseline"), (0.5, "x"))]
    assert standing(only(records + more), "p:x").wins == 0, "one of ten"


def test_a_method_that_lacks_a_task_has_no_mean_rank_and_a_sentence_says_so() -> None:
    block = only([*three_tasks(), of_task("a", 0.9, "z")])
    assert standing(block, "p:z").rank is None and standing(block, "p:x").rank is not None
    assert "No mean rank, p:z: no sound score of b, c" in block.notes
    other = {"name": "other", "digest": "f" * 16}
    several = only([*three_tasks(), *(of_task(n, 0.5, m, model=other) for n in "ab" for m in ("baseline", "x"))])
    assert "other, float32: No mean rank, p:x: no sound score of c" in several.notes, (
        "whose it is, where there are several"
    )
    part = [of_task(name, 0.5, method, settings={"limit": 4}) for name in "ab" for method in ("baseline", "x")]
    assert only(part).notes == ("No mean rank: 2 tasks asked in part",)


def test_with_one_task_the_place_is_that_on_its_documents() -> None:
    block = only([of_task("a", value, method) for value, method in ((0.5, "baseline"), (0.9, "x"), (0.89, "y"))])
    found = [(one.method, one.rank and (one.rank.place, one.rank.is_tied)) for one in block.models["tiny, float32"]]
    assert found == [("p:x", (1, True)), ("p:y", (1, True)), ("baseline", (3, False))]


def test_methods_that_share_no_task_stand_in_blocks_of_their_own() -> None:
    records = [
        of_task("a", 0.5),
        of_task("a", 0.6, "x"),
        of_task("b", 0.5),
        of_task("b", 0.6, "y"),
        of_task("b", 0.7, "z"),
    ]
    blocks = summarise(board.build(records))
    assert [sorted(one.method for one in block.models["tiny, float32"]) for block in blocks] == [
        ["baseline", "p:y", "p:z"], ["baseline", "p:x"],
    ]  # fmt: skip
    assert summarise(board.build([])) == []
    [single] = summarise(board.build([of_task("a", 0.5)]))
    assert single.models["tiny, float32"][0].rank is None


def test_models_stand_below_one_another_with_the_same_tasks() -> None:
    other = {"name": "other", "digest": "f" * 16}
    records = [*three_tasks(), of_task("a", 0.3, "x", model=other), of_task("a", 0.2, model=other)]
    block = only(records)
    assert list(block.models) == ["other, float32", "tiny, float32"]
    assert standing(block, "p:x", "other, float32").wins == 1


def test_a_quantised_model_is_put_beside_its_full_precision() -> None:
    quantised = {"quantization": "nf4"}
    records = [*three_tasks(), of_task("a", 0.4, "x", model=quantised), of_task("a", 0.49, model=quantised)]
    block = only(records)
    [x] = [one for one in block.models["tiny, nf4 (float32)"] if one.method == "p:x"]
    assert x.against_full[0].value == pytest.approx(0.4 - 0.7) and x.against_full[0].verdict == "worse"
    grid = summary_grid.summary(board.build(records), Settings()).grids[-1]
    assert grid.title == "tiny: quantised less full precision"
    assert {row[0].text: row[2].text for row in grid.rows} == {"baseline": "-0.010", "p:x": "-0.300 ▼"}


def test_quantised_rows_of_several_models_say_which_model_they_are_of() -> None:
    other, nf4 = {"name": "other", "digest": "f" * 16}, {"quantization": "nf4"}
    models = (({}, 0.5), (nf4, 0.4), (other, 0.3), (other | nf4, 0.29))
    records = [of_task("a", value, model=model) for model, value in models]
    grid = summary_grid.summary(board.build(records), Settings()).grids[-1]
    assert grid.title == "2 models: quantised less full precision"
    told = {row[1].text: row[2].text for row in grid.rows}
    assert told == {"other, nf4 (float32)": "-0.010", "tiny, nf4 (float32)": "-0.100 ▼"}


def test_what_may_be_negative_is_retained_as_a_difference() -> None:
    """A log-likelihood by its scores, a correlation by its aggregation; turned where less is better."""
    correlation = {"name": "r", "aggregation": "spearman"}
    records = [of_task("a", value, method) for method, value in (("baseline", 0.5), ("x", 0.6))]
    for name, values, metric in (
        ("sts", (0.2, 0.1), correlation),
        ("story", (-100.0, -50.0), {"name": "loglikelihood"}),
        ("loss", (-1.0, 0.5), {"name": "loss", "higher_is_better": False}),
        ("text", (1.0, 1.25), {"name": "bits", "higher_is_better": False}),
    ):
        records += [
            of_task(name, value, method, metric=metric) for value, method in zip(values, ("baseline", "x"), strict=True)
        ]
    retained = ["sts", "story", "loss", "text"]
    found = standing(only(records, retention=retained), "p:x").retention
    assert found is not None and (found.share, found.task) == (pytest.approx(0.8), "text")
    assert found.changes == {"loss": -1.5, "story": 50.0, "sts": pytest.approx(-0.1)}
    built = board.build(records)
    cell = "80.0% (-1.5, loss; +50, story; -0.10, sts)"
    assert cell in markdown_page.render_board(built, settings=Settings(retention=retained), tables="")
    alone = standing(only(records, retention=["sts"]), "p:x").retention
    assert alone is not None and (alone.share, alone.worst, alone.task) == (None, None, None)
    assert "| -0.10, sts |" in markdown_page.render_board(built, settings=Settings(retention=["sts"]), tables="")


def test_a_score_that_fell_to_nothing_counts_as_nothing_retained() -> None:
    values = {"a": (0.5, 0.6), "text": (0.5, 0.0), "more": (0.5, 0.5)}
    records = [
        of_task(name, value, method)
        for name, pair in values.items()
        for value, method in zip(pair, ("baseline", "x"), strict=True)
    ]
    x = standing(only(records, retention=["text", "more"]), "p:x")
    assert x.retention is not None and (x.retention.share, x.retention.worst, x.retention.task) == (0.5, 0.0, "text")


def test_methods_stand_by_the_baseline_of_their_own_prompts() -> None:
    """Two chat templates of one model: a method of the second is not ranked against the untouched model of the first."""
    first, second = ({"prompts_digest": digit * 16} for digit in "12")
    records = [
        record(value, method=method, stderr=0.01, task={"name": name} | prompts, settings={"apply_chat_template": True})
        for name in "ab"
        for value, method, prompts in ((0.5, "baseline", first), (0.9, "baseline", second), (0.7, "x", second))
    ]
    models = only(records).models
    ranks = {m: [(one.method, one.rank and one.rank.mean) for one in rows] for m, rows in models.items()}
    assert ranks == {
        "tiny, float32": [("baseline", None)],
        "tiny, float32, prompts 22222222": [("baseline", 1.0), ("p:x", 2.0)],
    }


def prompts_of(run: str, task: str, digit: str, value: float, method: str = "baseline") -> Record:
    """Return a record of a run that asked by a chat template; its prompts have another digest on each task."""
    part = {"name": task, "prompts_digest": digit * 16}
    return record(
        value, method=method, stderr=0.01, task=part, settings={"apply_chat_template": True}, run=f"{run}-{method}"
    )


def test_prompts_of_one_run_are_one_set_over_tasks() -> None:
    """Two chat templates on seven tasks: places over tasks are kept in each, whatever the digests of their prompts."""
    records = []
    for n, task in enumerate("abcdefg"):
        for run, digit in (("new", "123456789"[n]), ("old", "fedcba987"[n])):
            records += [
                prompts_of(run, task, digit, value, method) for method, value in (("baseline", 0.5), ("x", 0.7))
            ]
    block = only(records)
    told = {model: [(one.method, one.rank and one.rank.place) for one in rows] for model, rows in block.models.items()}
    other = "tiny, float32, prompts ffffffff on a"
    assert told == {name: [("p:x", 1), ("baseline", 2)] for name in ("tiny, float32", other)}
    first = block.models["tiny, float32"][0].scores[0].sources
    assert records[first[0]].run == "new-x", "of as many tasks the one recorded first"
    assert f"{other}: the same model, asked with other prompts" in " ".join(block.notes)
    # On one task more, the other set is the one without a name, and the order of the ledger tells nothing.
    records += [prompts_of("old", "h", "0", value, method) for method, value in (("baseline", 0.5), ("x", 0.7))]
    for some in (records, records[::-1]):
        models = only(some).models
        assert set(models) == {"tiny, float32", "tiny, float32, prompts 11111111 on a"}
        assert {some[score.sources[0]].run for score in models["tiny, float32"][0].scores.values()} == {"old-x"}


def test_an_engine_of_its_own_is_a_model_of_its_own() -> None:
    records = [
        of_task(task, value, method, environment={"engine": engine})
        for task in "ab"
        for engine in (None, "vllm 0.9")
        for method, value in (("baseline", 0.5), ("x", 0.6))
    ]
    assert set(only(records).models) == {"tiny, float32, engine torch", "tiny, float32, engine vllm"}


def test_places_are_among_the_rows_of_one_model_on_a_single_task_as_on_several() -> None:
    other = {"name": "other", "digest": "f" * 16}
    records = [of_task("a", 0.5), of_task("a", 0.6, "x")]
    records += [of_task("a", 0.8, model=other), of_task("a", 0.9, "x", model=other)]
    block = only(records)
    for model in ("tiny, float32", "other, float32"):
        assert [(one.method, one.rank and one.rank.place) for one in block.models[model]] == [
            ("p:x", 1),
            ("baseline", 2),
        ]
    [table] = board.build(records).tables
    ranks = {(row.first.model.name, row.label): row.scores["acc", "none"].rank for row in table.rows}
    assert ranks == {("other", "p:x"): 1, ("other", "baseline"): 2, ("tiny", "p:x"): 3, ("tiny", "baseline"): 4}
    models = only([of_task("a", 0.5), of_task("a", 0.8, model=other)])
    assert [one.rank and one.rank.place for rows in models.models.values() for one in rows] == [1, 2], "models alone"


def test_seconds_a_document_are_over_the_tasks_that_all_rows_have() -> None:
    slow = of_task("b", 0.5, "x", cost={"evaluate_seconds": 4_000.0})
    block = only([of_task("a", 0.5), of_task("a", 0.6, "x"), slow])
    assert standing(block, "p:x").seconds_a_document == pytest.approx(2 / 40)


def test_files_made_for_each_seed_are_seeds_of_one_row_unless_a_seed_has_two() -> None:
    def run(seed: int, file: str) -> Record:
        return record(0.6, seed=seed, options={"pairs": file})

    [table] = board.build([record(0.6, seed=n, options={"pairs": f"pairs-{n}.jsonl"}) for n in range(3)]).tables
    [row] = table.rows
    assert len(row.sources) == 3 and row.first.method.options == {"pairs": "pairs-{seed}.jsonl"}
    apart = [record(0.6, seed=0, options={"pairs": name}) for name in ("pairs-0.jsonl", "pairs-0.json")]
    assert len(board.build(apart).tables[0].rows) == 2
    files = SeedFiles([])
    assert files.of_any_seed(run(0, "p0.jsonl")) is not None
    assert files.of_any_seed(record(0.6, seed=1, options={"rank": 1, "pairs": "p10.jsonl", "name": "v1"})) is None
    for seed, name in ((0, "Qwen/Qwen2.5-0.5B"), (1, "Qwen/Qwen2.5-1.5B"), (1, "1.5")):
        assert files.of_any_seed(record(0.6, seed=seed, options={"teacher": name})) is None, "no file"
    assert run(1, "x1.jsonl").method.options == {"pairs": "x1.jsonl"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["v2-pairs-1.jsonl", "v2-pairs-2.jsonl", "v2-pairs-3.jsonl"], "v2-pairs-{seed}.jsonl"),
        (["runs-1/pairs-1.jsonl", "runs-2/pairs-2.jsonl", "runs-3/pairs-3.jsonl"], "runs-{seed}/pairs-{seed}.jsonl"),
        (["1/of-3.jsonl", "2/of-3.jsonl", "3/of-3.jsonl"], "{seed}/of-3.jsonl"),
    ],
)
def test_only_the_number_that_is_the_seed_in_all_files_is_taken_for_it(names: list[str], told: str) -> None:
    records = [record(0.6, seed=1 + n, options={"pairs": name}) for n, name in enumerate(names)]
    [row] = board.build(records).tables[0].rows
    assert len(row.sources) == 3 and row.first.method.options == {"pairs": told}
    if told.count(SEED) == 1:  # one that has no other seed beside it is called as it is beside others
        [alone] = board.build(records[:1]).tables[0].rows
        assert alone.first.method.options == {"pairs": told}


def test_options_that_rows_do_not_name_though_they_differ_are_named_below_the_grid() -> None:
    options = [{"steps": 3, "batch_size": 4}, {"steps": 5, "batch_size": 8}]
    block = only([of_task("a", 0.5), *(of_task("a", 0.6, "x", options=one) for one in options)])
    assert [one.method for one in block.models["tiny, float32"]] == ["p:x (steps=3)", "p:x (steps=5)", "baseline"]
    said = "Rows of p:x also differ in batch_size (4 at steps=3, 8 at steps=5)"
    assert said in block.notes
    assert f"* {said}." in markdown_page.render_board(board.build([of_task("a", 0.6, "x", options=o) for o in options]))
    some = [{"steps": n, "batch_size": n % 2, "text": "t" * 99 + str(n % 2)} for n in range(9)]
    [sentence] = only([of_task("a", 0.6, "x", options=one) for one in some]).notes
    assert (
        sentence
        == f"Rows of p:x also differ in batch_size (0, 1), text ({'t' * 19}…{'t' * 19}0, {'t' * 19}…{'t' * 19}1)"
    )


def test_rows_with_the_same_options_are_told_by_what_else_is_not_the_same() -> None:
    """The content of a file, the plugin's code, the type of a value: no two rows of a model are called alike."""
    cases = {
        "files": [{"method": {"inputs": text}} for text in ("a" * 16, "b" * 16)],
        "code": [{"plugin": {"code_digest": text}} for text in ("a" * 16, "b" * 16)],
        "package": [{"plugin": {"distribution": text}} for text in ("mine", "yours")],
        "options": [{"method": {"options": {"n": value}}} for value in (["1", "2"], "1+2")],
    }
    for word, pair in cases.items():
        records = []
        for one in pair:
            whole = of_task("a", 0.6, "x", options={"n": 1}).model_dump()
            records.append(Record.model_validate(whole | {name: whole[name] | part for name, part in one.items()}))
        told = [one.method for one in only(records).models["tiny, float32"]]
        assert len(set(told)) == 2 and all(f", {word} " in name for name in told), told


def test_no_document_s_score_differs_is_said_in_words(tmp_path: Path) -> None:
    records = [
        record(method=name, **measured(tmp_path, name, {n: float(n % 2) for n in range(60)}))
        for name in ("baseline", "x")
    ]
    file = tmp_path / "records.jsonl"
    file.write_text("".join(one.to_line() + "\n" for one in records), encoding="utf-8")
    built = board.build_reading(ledger.read(file))
    assert "(same on every document)" in markdown_page.render_board(built, tables="")
    assert "same score on every document" in page.render(built)


def test_bad_boards_are_summarised_without_an_error() -> None:
    """Issue 17, bad input: one record; equal scores; one task; 300 methods; models that share no task."""
    many = [of_task(task, 0.5, f"m{n}") for n in range(300) for task in "ab"]
    apart = of_task("b", 0.5, model={"name": "other", "digest": "f" * 16})
    equal = [of_task(task, 0.5, method) for task in "abcdefg" for method in ("baseline", "x", "y")]
    cases = [[of_task("a", 0.5)], equal, many, [of_task("a", 0.5), apart], [record(None, status="invalid")]]
    for records in cases:
        built = board.build(records)
        assert "## Summary" in markdown_page.render_board(built) and 'id="summary"' in page.render(built)
    places = {one.rank.place for one in only(many).models["tiny, float32"] if one.rank}
    assert places == {1}, "all of them tie"


def test_a_board_s_own_words_stand_on_its_pages(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text(
        'title = "Mine <b>"\nabout = "What it is."\nretention = ["c"]\n[links]\nHelp = "https://example.org/x"\n'
        '[tasks.a]\nabout = "Is it so?"\npaper = "https://example.org/p"\n',
        encoding="utf-8",
    )
    own = settings.read(tmp_path)
    built = board.build(three_tasks())
    markdown, html = markdown_page.render_board(built, settings=own), page.render(built, settings=own)
    assert markdown.startswith(("# Mine \\<b\\>", "# Mine &lt;b&gt;"))
    assert "[Help](https://example.org/x)" in markdown and "Is it so? [Paper](https://example.org/p)" in markdown
    assert (
        "Mine &lt;b&gt;" in html and '<a href="https://example.org/x" rel="noreferrer">' in html and "Is it so?" in html
    )
    assert [block.columns[n].task for block in summarise(built, retention=own.retention) for n in block.retained] == [
        "c"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("titel = 'x'", "'titel' is not known; there are title, about, links, retention, tasks"),
        ("title = 3", "'title': Input should be a valid string"),
        ("[links]\nx = 'javascript:alert(1)'", "'links.x': String should match"),
        ("title = ", "is no TOML"),
        ("[tasks.a]\nabuot = 'x'", "'tasks.a.abuot' is not known; there are about, paper"),
    ],
)
def test_words_that_a_board_does_not_have_are_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        settings.read(tmp_path)
    assert said in str(caught.value) and "board.toml" in str(caught.value)
    (tmp_path / "records").mkdir()
    assert said in " ".join(checking.check(tmp_path).problems)


def test_one_document_with_an_error_beside_a_score_with_next_to_none_is_no_division_by_zero() -> None:
    metric = {"name": "score", "higher_is_better": True}
    kept = record(0.5, method="baseline", metric=metric, stderr=1e-300, counts={"docs": 9})
    one = record(0.6, method="x", metric=metric, stderr=0.01, counts={"docs": 1})
    assert standing(only([kept, one]), "p:x").differences[0].value == pytest.approx(0.1)


def test_numbers_beyond_the_largest_float_are_null_for_programs() -> None:
    unbounded = {"name": "score", "higher_is_better": True}
    records = [of_task("a", 0.5), of_task("a", 0.6, "x")]
    records += [of_task("text", v, m, metric=unbounded) for v, m in ((5e-324, "baseline"), (1e300, "x"))]
    [block] = summary_rows(board.build(records), ["text"])
    [retained] = [row["retained"] for row in block["models"][0]["rows"] if row["retained"]]
    assert retained == {"share": None, "worst": None, "task": "text", "changes": {}} and json.dumps(
        block, allow_nan=False
    )


def test_programs_get_the_summary_that_people_read(cli: Command, tmp_path: Path) -> None:
    write(tmp_path / "records.jsonl", three_tasks())
    made = cli("leaderboard", str(tmp_path / "records.jsonl"), "--json")
    content = json.loads(made.out)
    [block] = content["summary"]
    first = block["models"][0]["rows"][0]
    assert (first["method"], first["won"], first["lost"], first["tied"], first["mean_rank"]) == ("p:x", 3, 0, 0, 1.0)
    assert [task["task"] for task in block["tasks"] if task["is_for_retention"]] == ["plain_text"]
    number = str([task["task"] for task in block["tasks"]].index("b"))
    assert first["scores"][number]["difference"]["value"] == pytest.approx(0.3)
    assert len(content["scores"]) == 12
    refused = cli("leaderboard", str(tmp_path / "records.jsonl"), "--json", "-o", "x.md")
    assert refused.code == 2 and "--json prints" in refused.sentence


def test_models_without_methods_are_rows_of_one_grid() -> None:
    models = {name: {"name": name, "digest": name * 4} for name in ("small", "large", "huge")}
    values = {"small": (0.2, 0.3, 0.1), "large": (0.5, 0.6, 0.4), "huge": (0.55, 0.5, 0.6)}
    records = [
        of_task(task, value, model=models[name])
        for name, several in values.items()
        for task, value in zip("abc", several, strict=True)
    ]
    [block] = summarise(board.build(records))
    assert block.is_of_models and list(block.models) == [""]
    assert [one.method for one in block.models[""]] == ["huge, float32", "large, float32", "small, float32"]
    [grid] = summary_grid.summary(board.build(records), Settings()).grids
    assert (grid.title, grid.heads[0].text, grid.is_baseline) == ("a, b, c", "model", (False,) * 3)
