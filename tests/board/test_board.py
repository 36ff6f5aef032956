"""The model of a board: what stands side by side, what is ranked, and what is said about the rest."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy
import pytest
from board_records import baseline, measured, record, write

from harness.board import board, omissions, ranking
from harness.board.board import build
from harness.board.tables import Board, Row, Score, Table
from harness.records import aggregation, ledger
from harness.records.record import Record

ACC = ("acc", "none")


def only(built: Board) -> Table:
    """Return the one table of a board."""
    [table] = built.tables
    return table


def score(table: Table, label: str, metric: tuple[str, str] = ACC) -> Score:
    """Return the score of the one row with this label."""
    [row] = [row for row in table.rows if row.label == label]
    return row.scores[metric]


def test_rows_that_cannot_be_told_apart_share_a_rank_and_others_do_not() -> None:
    records = [
        record(value, method=name, stderr=0.02)
        for name, value in (("best", 0.9), ("also", 0.88), ("middle", 0.7), ("last", 0.5))
    ]
    table = only(build(records))
    ranks = {row.label: (row.scores[ACC].rank, row.scores[ACC].is_tied) for row in table.rows}
    assert ranks == {"p:best": (1, True), "p:also": (1, True), "p:middle": (3, False), "p:last": (4, False)}
    lower = only(
        build(
            [
                one.model_copy(update={"metric": one.metric.model_copy(update={"higher_is_better": False})})
                for one in records
            ]
        )
    )
    assert score(lower, "p:last").rank == 1 and score(lower, "p:best").rank == 3
    unknown = only(
        build(
            [
                one.model_copy(update={"metric": one.metric.model_copy(update={"higher_is_better": None})})
                for one in records
            ]
        )
    )
    assert all(row.scores[ACC].rank is None for row in unknown.rows)


@pytest.mark.parametrize("count", [30, 600], ids=["by a matrix", "sorted"])
def test_ranks_are_those_of_every_pair_compared(count: int) -> None:
    draw = random.Random(0)
    entries = [ranking.Entry(draw.random(), draw.choice([None, 0.0, 0.001, 0.02, 0.2])) for _ in range(count)]
    found = ranking.ranks(entries, higher_is_better=True)
    z = NormalDist().inv_cdf(1 - 0.025 / (count * (count - 1) / 2))  # over all pairs
    for position, one in enumerate(entries):
        margins = [z * ((one.stderr or 0) ** 2 + (other.stderr or 0) ** 2) ** 0.5 + 1e-12 for other in entries]
        better = sum(other.value - one.value > margin for other, margin in zip(entries, margins, strict=True))
        assert found[position][0] == 1 + better


def test_a_difference_without_samples_is_unpaired_and_holms_correction_is_over_the_rows() -> None:
    records = [baseline(0.5, stderr=0.02)]
    records += [record(0.5 + 0.03 * n, method=f"m{n}", stderr=0.02) for n in range(4)]
    table = only(build(records))
    found = [score(table, f"p:m{n}").difference for n in range(4)]
    assert [difference.is_paired for difference in found if difference] == [False] * 4
    assert found[3] is not None and found[3].low is not None and found[3].high is not None
    assert found[3].value == pytest.approx(0.09) and found[3].low == pytest.approx(
        0.09 - 1.96 * 0.02 * 2**0.5, abs=1e-4
    )
    alone = score(only(build([records[0], records[4]])), "p:m3").difference
    assert (
        alone is not None
        and alone.p is not None
        and (found[3].p, found[3].p_holm) == pytest.approx((alone.p, 4 * alone.p))
    )
    assert found[3].verdict == "better" and found[0] is not None and found[0].verdict == ""


def test_samples_beside_the_records_make_the_difference_paired(tmp_path: Path) -> None:
    draw = numpy.random.default_rng(0)
    theirs = {n: float(draw.random() < 0.5) for n in range(400)}
    ours = {n: 1.0 if n % 16 == 0 else one for n, one in theirs.items()}
    records = []
    for name, scores, method in (("a.jsonl", theirs, "baseline"), ("b.jsonl", ours, "m")):
        records.append(record(**measured(tmp_path, f"samples_{name}", scores, method=method)))
    reading = ledger.read(write(tmp_path / "records.jsonl", records))
    paired = score(only(board.build_reading(reading)), "p:m").difference
    unpaired = score(only(board.build_reading(reading, with_samples=False)), "p:m").difference
    assert (
        paired is not None
        and paired.is_paired
        and paired.verdict == "better"
        and paired.p is not None
        and paired.p < 0.01
    )
    assert unpaired is not None and not unpaired.is_paired and unpaired.verdict == ""
    ranks = {row.label: row.scores[ACC].rank for row in only(board.build_reading(reading)).rows}
    assert ranks == {"p:m": 1, "baseline": 2}, "pairs decide ranks, too"


@pytest.mark.parametrize("sizes", [(40, 40), (40, 160)])
@pytest.mark.parametrize("weighted", [True, False], ids=["by size", "alike"])
def test_a_group_is_paired_on_the_documents_of_its_tasks(
    tmp_path: Path, sizes: tuple[int, int], weighted: bool
) -> None:
    records = []
    for method, right in (("baseline", 0.5), ("m", 0.75)):
        means = []
        for name, size in zip(("a", "b"), sizes, strict=True):
            scores = {n: float(n % 4 < 4 * right) for n in range(size)}
            made = measured(tmp_path, f"samples_{name}_{method}.jsonl", scores, method=method, task={"name": name})
            records.append(record(**made))
            means.append(made["value"])
        shares = [size / sum(sizes) if weighted else 0.5 for size in sizes]
        value = sum(mean * share for mean, share in zip(means, shares, strict=True))
        group = {"name": "g", "group": True, "members": ["a", "b"]}
        errors = [one.stderr or 0.0 for one in records[-2:]]
        stderr = aggregation.group_errors(errors, sizes)[0 if weighted else 1]
        records.append(record(value, method=method, task=group, stderr=stderr, counts={"docs": sum(sizes)}))
    built = board.build_reading(ledger.read(write(tmp_path / "records.jsonl", records)))
    assert [table.first.task.name for table in built.tables] == ["g", "a", "b"]
    for table in built.tables:
        difference = score(table, "p:m").difference
        assert difference is not None and difference.is_paired and difference.verdict == "better"
        assert difference.value == pytest.approx(0.25)


def test_a_sample_file_that_cannot_be_read_is_told_and_the_board_is_made(tmp_path: Path) -> None:
    (tmp_path / "samples_t.jsonl").write_text("broken\n", encoding="utf-8")
    samples = {"path": "samples_t.jsonl", "sha256": "0"}
    records = [baseline(0.5, samples=samples), record(0.9, samples=samples)]
    built = board.build_reading(ledger.read(write(tmp_path / "records.jsonl", records)))
    assert len(only(built).rows) == 2
    assert any("samples_t.jsonl, line 1" in problem for problem in built.omissions.sample_problems)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"value": None, "counts": {"not_finite": 3}}, "no score: 3 requests gave no finite number"),
        ({"value": None}, "no score"),
        ({"counts": {"requests": 100, "truncated_requests": 2}}, "cut to fit the context: 2 of 100 requests"),
        ({"counts": {"empty_answers": 40}}, "every answer is empty"),
        ({"counts": {"distinct_answers": 1}}, "every answer is the same"),
    ],
)
def test_what_is_not_sound_stands_in_the_table_without_a_rank_and_with_the_reason(
    bad: dict[str, Any], reason: str
) -> None:
    built = build(
        [baseline(0.5, stderr=0.1), record(**{"value": 0.99, "method": "bad", "stderr": 0.1} | bad), record(0.6)]
    )
    table = only(built)
    found = score(table, "p:bad")
    assert (found.unranked, found.rank, found.difference) == (reason, None, None)
    assert score(table, "baseline").rank == 1, "it does not push others down either"
    assert built.omissions.unranked == ((reason.split(":")[0], 1),)


def test_one_percent_of_truncated_requests_is_still_ranked() -> None:
    table = only(build([record(0.5, counts={"requests": 100, "truncated_requests": 1})]))
    assert score(table, "p:m").rank == 1


def test_one_bad_seed_of_three_takes_the_rank_from_all() -> None:
    table = only(build([record(value, seed=seed) for seed, value in enumerate((0.5, None, 0.7))]))
    found = score(table, "p:m")
    assert found.unranked == "no score (1 of 3 seeds)"
    assert found.value == pytest.approx(0.6)
    assert [value for _, value in found.by_seed] == [0.5, None, 0.7]


def test_a_bad_baseline_is_no_ground_for_a_difference() -> None:
    table = only(build([baseline(None), record(0.7, stderr=0.1)]))
    assert score(table, "p:m").difference is None


def test_partial_runs_have_tables_of_their_own_and_no_ranks_but_differences() -> None:
    part = {"settings": {"limit": 10}, "counts": {"docs": 10}, "task": {"docs_digest": "less", "size": 40}}
    built = build(
        [
            baseline(0.5, stderr=0.1),
            record(0.6, stderr=0.1),
            baseline(0.9, stderr=0.1, **part),
            record(0.8, stderr=0.1, **part),
        ]
    )
    whole, partial = built.tables
    assert (whole.is_partial, partial.is_partial) == (False, True)
    assert all(row.scores[ACC].rank is None for row in partial.rows)
    assert score(partial, "p:m").difference is not None
    assert built.omissions.partial == 2
    assert "2 tables have this task's name; they differ in documents, limit" in whole.notes[0]


def test_two_tasks_of_one_name_and_other_content_are_told_apart() -> None:
    built = build(
        [
            record(0.5),
            record(0.9, task={"version": "2.0"}),
            record(0.9, task={"docs_digest": "other"}),
            record(0.1, task={"name": "u"}),
        ]
    )
    notes = [table.notes for table in built.tables]
    assert sorted(len(note) for note in notes) == [0, 1, 1, 1]
    assert {note[0] for note in notes if note} == {"3 tables have this task's name; they differ in version, documents"}


def test_models_of_one_task_stand_in_one_table_and_each_has_its_own_baseline() -> None:
    records = [
        baseline(0.4, stderr=0.01), record(0.5, stderr=0.01),
        baseline(0.6, stderr=0.01, model={"name": "big", "digest": "b"}),
        record(0.7, stderr=0.01, model={"name": "big", "digest": "b"}),
    ]  # fmt: skip
    table = only(build(records))
    differences = [row.scores[ACC].difference for row in table.rows if not row.first.is_baseline]
    assert [difference and round(difference.value, 9) for difference in differences] == [0.1, 0.1]
    assert [row.scores[ACC].rank for row in table.rows] == [2, 1, 4, 3]


def test_two_models_of_one_name_say_what_differs() -> None:
    table = only(build([record(0.5), record(0.6, model={"digest": "fedcba9876"})]))
    assert {row.variant for row in table.rows} == {"files 01234567", "files fedcba98"}
    table = only(build([record(0.5), record(0.6, model={"quantization": "nf4"})]))
    assert {row.variant for row in table.rows} == {""}, "the quantisation has a column of its own"


def test_versions_that_differ_within_a_table_are_noted() -> None:
    table = only(build([record(0.5), record(0.6, method="n", environment={"lm_eval": "2"})]))
    assert table.notes == ("rows were made with more than one lm_eval: 1, 2",)


def test_all_seeds_count_and_the_best_cannot_be_picked() -> None:
    values = [0.5, 0.6, 0.9]
    table = only(build([record(value, seed=seed) for seed, value in enumerate(values)]))
    found = score(table, "p:m")
    assert found.value == pytest.approx(sum(values) / 3)
    assert found.by_seed == (("0", 0.5), ("1", 0.6), ("2", 0.9))


def test_bad_lines_are_counted_named_and_the_rest_is_used(tmp_path: Path) -> None:
    file = write(tmp_path / "records.jsonl", [baseline(0.5), record(0.6)])
    file.write_text("broken\n" * 30 + file.read_text(encoding="utf-8"), encoding="utf-8")
    built = board.build_reading(ledger.read(file))
    said = omissions.omission_sentences(built.omissions)
    assert said[0] == "30 lines could not be read as a record:"
    assert len([one for one in said if "line " in one]) == 20 and said[-1] == "– and 10 more"
    assert len(only(built).rows) == 2


def test_the_same_records_in_any_order_give_the_same_rows_ranks_and_differences() -> None:
    records = [
        record(0.1 * n, seed=n % 3, method=f"m{n % 2}", task={"name": f"t{n % 2}"}, stderr=0.01) for n in range(6)
    ]
    records += [baseline(task={"name": "t0"}, stderr=0.01), baseline(task={"name": "t1"}, stderr=0.01)]

    def told(order: list[Record]) -> list[Any]:
        return [
            (
                table.first.task.name,
                [
                    (row.label, row.scores[ACC].value, row.scores[ACC].rank, row.scores[ACC].difference)
                    for row in table.rows
                ],
            )
            for table in build(order).tables
        ]

    first = told(records)
    for order in itertools.islice(itertools.permutations(records), 0, 5000, 97):
        assert told(list(order)) == first


def test_huge_and_tiny_numbers_break_nothing() -> None:
    for values in ((1e308, -1e308), (1e-320, 0.0), (1e308, 1e308)):
        for stderr in (None, 0.0, 1e308, 1e-320):
            built = build([baseline(values[0], stderr=stderr), record(values[1], stderr=stderr)])
            assert len(only(built).rows) == 2


def test_rows_remember_one_record_for_each_seed() -> None:
    records = [record(0.1, seed=seed, metric={"name": name}) for seed in range(3) for name in ("acc", "f1")]
    built = build(records)
    [row] = only(built).rows
    assert isinstance(row, Row)
    assert [built.records[source].seeds.random for source in row.sources] == [0, 1, 2]


def test_the_tasks_of_a_group_stand_right_after_it_and_groups_may_hold_groups() -> None:
    tasks: dict[str, list[str] | None] = {
        "z": ["y", "b"],
        "y": ["a", "x"],
        "a": None,
        "b": None,
        "x": None,
        "c": None,
        "q": ["q"],
    }
    records = [
        record(task={"name": name, "group": members is not None, "members": members}) for name, members in tasks.items()
    ]
    assert [table.first.task.name for table in build(records).tables] == ["q", "z", "y", "a", "x", "b", "c"]


def test_a_seed_that_lacks_a_metric_takes_the_rank_from_it(tmp_path: Path) -> None:
    records = [record(0.5, seed=seed) for seed in range(3)]
    records += [
        record(0.9, seed=0, metric={"name": "f1"}),
        record(0.4, method="n", metric={"name": "f1"}),
        record(0.4, method="n"),
    ]
    found = score(only(build(records)), "p:m", ("f1", "none"))
    assert (found.rank, found.unranked) == (None, "no record of it (2 of 3 seeds)")
    assert score(only(build(records)), "p:n", ("f1", "none")).rank == 1


@pytest.mark.parametrize(
    ("other", "note"),
    [
        ({"higher_is_better": False}, "records differ on which way of acc is good, so it gives no ranks"),
        ({"aggregation": "median"}, "acc is made in more than one way (mean, median), so it gives no ranks"),
    ],
)
def test_records_of_a_metric_that_are_of_two_kinds_are_not_ranked_and_that_is_said(
    other: dict[str, Any], note: str
) -> None:
    table = only(
        build(
            [
                record(0.5, metric={"aggregation": "mean"}),
                record(0.9, method="n", metric={"aggregation": "mean"} | other),
            ]
        )
    )
    assert table.notes == (note,)
    assert all(row.scores[ACC].rank is None for row in table.rows)
    assert len(table.rows) == 2
