"""harness compare: the right documents paired, the right numbers said about them, and what does not compare refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_runs import make_record, write_run

from harness.board import board
from harness.cli import main
from harness.comparing.comparison import (
    BETTER,
    DOES_NOT_FOLLOW,
    HIGHER,
    NO_DIFFERENCE,
    NOT_TESTED,
    TOO_FEW,
    WORSE,
    Comparison,
    Request,
    TaskComparison,
    compare,
)
from harness.comparing.sides import Pool, find_sides
from harness.records import intervals, ledger, samples, statistics

GENERATOR = np.random.default_rng(0)
FEW = [float(x) for x in GENERATOR.random(40) < 0.5]
MANY = [float(x) for x in GENERATOR.random(800) < 0.5]


def compared(folder: Path, *words: str, **request: Any) -> Comparison:
    return compare(find_sides(words or ("baseline", "m"), Pool(folder)), Request(**request))


def rows_of(comparison: Comparison) -> dict[tuple[str, str], TaskComparison]:
    return {(row.task, row.metric): row for row in comparison.rows}


def flipped(values: list[float], up: int, down: int) -> list[float]:
    """Return values of which ``up`` documents that were wrong are right, and ``down`` the other way."""
    changed, wrong, right = list(values), 0, 0
    for i, value in enumerate(values):
        if value == 0 and wrong < up:
            changed[i], wrong = 1.0, wrong + 1
        elif value == 1 and right < down:
            changed[i], right = 0.0, right + 1
    return changed


def test_right_and_wrong_documents_get_mcnemars_test(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": flipped(FEW, 9, 2)}}, method="m")
    [row] = compared(tmp_path).rows
    assert (row.documents, row.up, row.down, row.test) == (40, 9, 2, statistics.MCNEMAR)
    assert row.p == row.p_holm == statistics.mcnemar(2, 9)
    assert row.difference == pytest.approx(7 / 40)
    assert (row.low, row.high) == pytest.approx(statistics.share_interval(2, 9, 40))
    assert row.is_paired


def test_documents_are_paired_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    unordered = {"task": {"docs_digest": None}}  # which is over the order, too
    write_run(tmp_path, {"t": {"acc": FEW}}, **unordered)
    [record] = write_run(tmp_path, {"t": {"acc": flipped(FEW, 9, 2)}}, method="m", **unordered)
    assert record.samples is not None and record.run is not None
    path = tmp_path / record.run / record.samples.path
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
    moved = record.model_copy(update={"samples": record.samples.model_copy(update={"sha256": samples.sha256(path)})})
    ledger.write(tmp_path / record.run / "records_t.jsonl", [moved])
    [row] = compared(tmp_path).rows
    assert (row.up, row.down) == (9, 2)


def test_other_numbers_get_a_paired_bootstrap(tmp_path: Path) -> None:
    values = GENERATOR.normal(size=60)
    other = values + 0.3 + 0.2 * GENERATOR.normal(size=60)
    write_run(tmp_path, {"t": {"bits": list(values)}}, better={"bits": False})
    write_run(tmp_path, {"t": {"bits": list(other)}}, better={"bits": False}, method="m")
    [row] = compared(tmp_path).rows
    expected = statistics.compare(values, other)
    assert (row.test, row.p, row.verdict) == (statistics.BOOTSTRAP, expected.p, WORSE)
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("values", "up", "down", "better", "verdict"),
    [
        (MANY, 60, 20, True, BETTER),
        (MANY, 20, 60, True, WORSE),
        (MANY, 60, 20, False, WORSE),
        (MANY, 60, 20, None, HIGHER),
        (MANY, 21, 20, True, NO_DIFFERENCE),
        (FEW, 3, 2, True, TOO_FEW),
        (FEW, 0, 0, True, TOO_FEW),
        (MANY, 0, 0, True, NO_DIFFERENCE),
    ],
)
def test_the_verdict_says_what_was_found(
    tmp_path: Path, values: list[float], up: int, down: int, better: bool | None, verdict: str
) -> None:
    write_run(tmp_path, {"t": {"acc": values}}, better={"acc": better})
    write_run(tmp_path, {"t": {"acc": flipped(values, up, down)}}, better={"acc": better}, method="m")
    [row] = compared(tmp_path).rows
    assert row.verdict == verdict


def test_the_margin_decides_between_no_difference_and_too_few_documents(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": flipped(FEW, 3, 2)}}, method="m")
    [row] = compared(tmp_path, margin=0.5).rows
    assert row.margin == 0.5 and row.detectable is not None and row.detectable < 0.5
    assert row.verdict == NO_DIFFERENCE


def test_holm_corrects_over_the_tasks_of_a_metric(tmp_path: Path) -> None:
    changes = {"a": (9, 2), "b": (6, 5), "c": (12, 3)}
    write_run(tmp_path, {task: {"acc": FEW, "other": FEW} for task in changes})
    write_run(tmp_path, {t: {"acc": flipped(FEW, *c), "other": FEW} for t, c in changes.items()}, method="m")
    rows = rows_of(compared(tmp_path))
    plain = [statistics.mcnemar(down, up) for up, down in changes.values()]
    assert [rows[task, "acc"].p_holm for task in changes] == pytest.approx(statistics.holm(plain))


def test_more_sides_are_each_compared_with_the_first_in_one_family(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": flipped(FEW, 9, 2)}}, method="m")
    write_run(tmp_path, {"t": {"acc": flipped(FEW, 12, 1)}}, method="n")
    comparison = compared(tmp_path, "baseline", "m", "n")
    assert [row.side for row in comparison.rows] == ["m", "n"]
    plain = [statistics.mcnemar(2, 9), statistics.mcnemar(1, 12)]
    assert [row.p_holm for row in comparison.rows] == pytest.approx(statistics.holm(plain))


def test_seeds_are_averaged_by_document_and_their_variation_is_shown_apart(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    seeds = [flipped(FEW, up, 1) for up in (4, 6, 8)]
    for seed, values in enumerate(seeds):
        write_run(tmp_path, {"t": {"acc": values}}, method="m", seed=seed)
    [row] = compared(tmp_path).rows
    means = [float(np.mean(values)) for values in seeds]
    assert row.second.by_seed == tuple(enumerate(means))
    assert row.second.deviation == pytest.approx(np.std(means, ddof=1))
    assert row.first.deviation is None
    expected = statistics.compare(FEW, np.mean(seeds, axis=0))
    assert (row.p, row.test) == (expected.p, statistics.BOOTSTRAP)
    assert row.low == pytest.approx(expected.low)
    assert row.difference == pytest.approx(np.mean(means) - np.mean(FEW))


def test_of_a_measurement_repeated_the_later_record_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"t": {"acc": FEW}})
    write_run(tmp_path / "b", {"t": {"acc": flipped(FEW, 9, 2)}}, method="m")
    write_run(tmp_path / "c", {"t": {"acc": flipped(FEW, 5, 5)}}, method="m")
    [row] = compared(tmp_path).rows
    assert (row.up, row.down) == (5, 5)


@pytest.mark.parametrize("weigh_alike", [False, True])
def test_a_group_combines_the_documents_of_its_tasks(tmp_path: Path, weigh_alike: bool) -> None:
    long, groups = MANY[:100], {"g": ["g_b", "g_a"]}
    write_run(tmp_path, {"g_a": {"acc": FEW}, "g_b": {"acc": long}}, groups=groups, weigh_alike=weigh_alike)
    scores = {"g_a": {"acc": flipped(FEW, 9, 2)}, "g_b": {"acc": flipped(long, 12, 6)}}
    write_run(tmp_path, scores, groups=groups, weigh_alike=weigh_alike, method="m")
    comparison = compared(tmp_path)
    group = comparison.rows[0]
    assert (group.task, group.is_group, group.documents, group.up, group.down) == ("g", True, 140, 21, 8)
    assert group.test == (statistics.BOOTSTRAP if weigh_alike else statistics.MCNEMAR)
    assert group.difference == pytest.approx((7 / 40 + 6 / 100) / 2 if weigh_alike else 13 / 140)
    assert group.p_holm == group.p, "groups are a family of their own"
    assert not group.changes


def test_a_group_is_tested_without_showing_its_tasks(tmp_path: Path) -> None:
    for method in ("baseline", "m"):
        scores = {"g_a": {"acc": FEW}, "g_b": {"acc": flipped(FEW, 1, 2)}}
        write_run(tmp_path, scores, groups={"g": ["g_a", "g_b"]}, method=method)
    comparison = compared(tmp_path, tasks=("g",))
    [row] = comparison.rows
    assert row.p == 1
    assert comparison.costs[1].evaluate_seconds == 4, "what its tasks took counts"


def test_a_group_whose_tasks_are_missing_is_shown_without_a_test(tmp_path: Path) -> None:
    for method in ("baseline", "m"):
        record = make_record("g", "acc", 0.5, docs=80, stderr=0.02, method=method, group=["g_a", "g_b"])
        ledger.write(tmp_path / f"{method}.jsonl", [record])
    comparison = compared(tmp_path)
    [row] = comparison.rows
    assert (row.verdict, row.p) == (NOT_TESTED, None)
    assert "its tasks are not among the records: g" in comparison.notes[0]


def test_without_sample_files_values_are_shown_and_nothing_is_tested(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}}, with_samples=False)
    write_run(tmp_path, {"t": {"acc": flipped(FEW, 9, 2)}}, method="m", with_samples=False)
    comparison = compared(tmp_path)
    [row] = comparison.rows
    assert (row.verdict, row.p, row.up, row.is_paired) == (NOT_TESTED, None, None, False)
    assert row.first.stderr and row.second.stderr and row.low is not None
    ends = [intervals.clopper_pearson(round(40 * score.value), 40) for score in (row.first, row.second)]
    below = math.hypot(row.second.value - ends[1][0], ends[0][1] - row.first.value)
    assert row.low == pytest.approx(row.difference - below), "of right and wrong, 40 documents are few"
    assert comparison.notes[0] == "not tested, no sample files beside the records: t"


def test_the_documents_that_changed_most_come_with_both_answers(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": flipped(FEW, 9, 6)}}, method="m")
    [row] = compared(tmp_path).rows
    assert len(row.changes) == 10
    wrong = next(change for change in row.changes if change.second_score == 0)
    assert (wrong.first_score, wrong.first_answer, wrong.second_answer, wrong.target) == (
        1,
        "right",
        "wrong",
        "right",
    )
    assert wrong.question == f"Question t {wrong.document}?"
    [row] = compared(tmp_path, documents=0).rows
    assert row.changes == ()


def test_generated_answers_are_shown_as_they_are(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"match": [0.0, 1.0, 0.2]}}, answers=["a", "b", "c"])
    write_run(tmp_path, {"t": {"match": [0.9, 1.0, 0.1]}}, answers=["d", "e", "f"], method="m")
    [row] = compared(tmp_path).rows
    assert [(c.document, c.first_answer, c.second_answer) for c in row.changes] == [("0", "a", "d"), ("2", "c", "f")]


def test_answers_of_several_seeds_stand_side_by_side(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": [0.0, 0.0]}}, answers=["a", "b"])
    for seed, answers in ((2, ["c", "d"]), (1, ["c", "e"])):
        write_run(tmp_path, {"t": {"acc": [1.0, float(seed == 2)]}}, method="m", seed=seed, answers=answers)
    [row] = compared(tmp_path).rows
    assert [(c.first_answer, c.second_answer, c.second_score) for c in row.changes] == [
        ("a", "c", 1.0),
        ("b", "e / d", 0.5),
    ]


def test_costs_are_those_of_a_seed(tmp_path: Path) -> None:
    scores = {"a": {"acc": FEW, "other": FEW}, "b": {"acc": FEW}}
    write_run(tmp_path, scores)
    for seed in (1, 2):
        cost = {
            "apply_seconds": 10.0 * seed,
            "evaluate_seconds": 3.0,
            "apply_peak_bytes": 5,
            "tokens_trained": 100 * seed,
        }
        write_run(tmp_path, scores, method="m", seed=seed, cost=cost)
    cost = compared(tmp_path).costs[1]
    assert (cost.apply_seconds, cost.evaluate_seconds, cost.apply_peak_bytes, cost.tokens_trained) == (15, 6, 5, 150)


def test_perplexity_is_tested_on_its_documents(tmp_path: Path) -> None:
    logs = [GENERATOR.normal(-2, 0.5, size=200) for _ in range(2)]
    for method, column in zip(("baseline", "m"), (logs[0], logs[0] + 0.05 + 0.1 * logs[1]), strict=True):
        write_run(
            tmp_path, {"t": {"ppl": list(column)}}, method=method, values={"ppl": math.exp(-column.mean())},
            aggregations={"ppl": "perplexity"}, better={"ppl": False},
        )  # fmt: skip
    [row] = compared(tmp_path).rows
    assert row.test == statistics.BOOTSTRAP
    assert row.low is not None and row.high is not None and row.low < row.difference < row.high
    assert row.difference == pytest.approx(row.second.value - row.first.value)


@pytest.mark.parametrize("aggregation", [None, "median", "my_own"])
def test_a_score_that_is_no_mean_of_its_documents_is_not_tested(tmp_path: Path, aggregation: str | None) -> None:
    for method in ("baseline", "m"):
        value = float(np.median(FEW)) if aggregation == "median" else 0.123
        scores = {"t": {"score": FEW}}
        write_run(tmp_path, scores, method=method, values={"score": value}, aggregations={"score": aggregation})
    comparison = compared(tmp_path)
    assert comparison.rows[0].verdict == NOT_TESTED
    assert "aggregation" in comparison.notes[0]


def test_tasks_and_metrics_on_one_side_only_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW, "old": FEW}, "u": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW}, "v": {"acc": FEW}}, method="m")
    comparison = compared(tmp_path)
    assert [(row.task, row.metric) for row in comparison.rows] == [("t", "acc")]
    assert "only in baseline, left out: u" in comparison.notes
    assert "only in m, left out: v" in comparison.notes
    assert "metrics of t on one side only, left out: old" in comparison.notes


def test_other_versions_and_devices_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW}}, method="m", environment={"device": "cuda"})
    assert "device: 1 for baseline, cuda for m" in compared(tmp_path).notes


def test_one_seed_of_a_trained_method_and_a_difference_too_small_to_matter_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"bits": list(np.linspace(1, 2, 50))}}, cost={"tokens_trained": None})
    write_run(tmp_path, {"t": {"bits": list(np.linspace(1, 2.001, 50))}}, method="m")
    notes = compared(tmp_path).notes
    assert "shown, but smaller than the margin: t bits" in notes
    assert "trained with one seed, so how scores vary over seeds is not known: m" in notes


def test_a_value_that_does_not_follow_from_the_samples_is_told_and_not_tested(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW}}, method="m", values={"acc": 0.99})
    comparison = compared(tmp_path)
    assert comparison.rows[0].verdict == DOES_NOT_FOLLOW
    assert comparison.contradicted[0].startswith("t, acc, m: value is 0.99, while its samples give ")


def test_a_bad_line_is_told_and_the_rest_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW}}, method="m")
    (tmp_path / "torn.jsonl").write_text('{"schema', encoding="utf-8")
    assert main(["compare", "m@baseline", "--records", str(tmp_path), "--format", "json"]) == 1
    said = capsys.readouterr()
    assert "torn.jsonl, line 1" in said.err
    assert json.loads(said.out)["comparisons"]


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, {"t": {"acc": flipped(FEW, seed, 2)}}, method="m", seed=seed)
    write_run(tmp_path, {"t": {"acc": FEW}})
    for name in ("one", "two"):
        words = ["m@baseline", "--records", str(tmp_path), "--format", "json", "--output", str(tmp_path / name)]
        assert main(["compare", *words]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_paired_interval_of_a_few_graded_documents_stays_within_what_a_difference_can_be(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": [0.0, 0.1, 0.0]}})
    write_run(tmp_path, {"t": {"acc": [1.0, 0.2, 0.9]}}, method="m")
    found = statistics.compare([0.0, 0.1, 0.0], [1.0, 0.2, 0.9])
    assert found.test == statistics.BOOTSTRAP and found.high is not None and found.high > 1
    [row] = compared(tmp_path).rows
    assert (row.low, row.high) == (pytest.approx(found.low), 1.0)
    built = board.build_reading(ledger.read(tmp_path))
    [difference] = [score.difference for score in built.scores() if score.difference is not None]
    assert difference.is_paired and (difference.low, difference.high) == (pytest.approx(found.low, abs=0.1), 1.0)
