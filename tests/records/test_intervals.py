"""The interval of a score: against scipy, how often it holds the truth, and at the edges."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from board_records import baseline, record

from harness.board import board, markdown_page, page
from harness.comparing.comparison import Request, compare
from harness.comparing.selectors import Sourced
from harness.comparing.sides import Side
from harness.records import intervals, statistics
from harness.records.intervals import BOOTSTRAP, ENOUGH, EXACT, NORMAL, STUDENT, Estimate
from harness.records.record import Record

GENERATOR = np.random.default_rng(0)


def of_share(right: int, docs: int, name: str = "acc", **more: Any) -> Record:
    """Return a record of so many right of so many documents, its error as lm-eval gives it."""
    share = right / docs
    stderr = math.sqrt(share * (1 - share) / (docs - 1)) if docs > 1 else None
    metric = {"name": name, "aggregation": "mean"}
    return record(
        **{"value": share, "stderr": stderr, "counts": {"docs": docs}, "metric": metric, "method": f"of{right}"} | more
    )


def test_zero_of_thirty_has_an_interval_and_no_error_of_zero() -> None:
    one = of_share(0, 30)
    found = intervals.interval(intervals.of_record(one))
    assert (
        found is not None
        and (found.low, found.method) == (0.0, EXACT)
        and found.high == pytest.approx(0.1157, abs=1e-4)
    )
    built = board.build([one, of_share(30, 30), of_share(29, 30)])
    text, html = markdown_page.render_board(built), page.render(built)
    assert "0.0000 [0.0000, 0.1157]" in text and "1.0000 [0.8843, 1.0000]" in text and "0.9667 [0.8278, 0.9992]" in text
    assert "± 0.0000" not in text and "±\u00a00.0000" not in html and "[0.0000,\u00a00.1157]" in html


@pytest.mark.parametrize("docs", [1, 2, 5, 10, 29, 60])
def test_right_and_wrong_get_an_interval_that_holds_the_truth_as_often_as_it_says(docs: int) -> None:
    ends = [intervals.clopper_pearson(right, docs) for right in range(docs + 1)]
    for truth in np.linspace(0.001, 0.999, 97):
        weights = scipy.stats.binom.pmf(range(docs + 1), docs, truth)
        held = sum(weight for weight, (low, high) in zip(weights, ends, strict=True) if low <= truth <= high)
        assert held >= 0.95 - 1e-9


@pytest.mark.parametrize(("right", "docs"), [(0, 30), (1, 30), (5, 10), (30, 30), (3, 1000), (997, 1000), (9, 100_000)])
@pytest.mark.parametrize("alpha", [0.05, 0.0001])
def test_exact_intervals_are_quantiles_of_beta(right: int, docs: int, alpha: float) -> None:
    low, high = intervals.clopper_pearson(right, docs, alpha)
    assert low == pytest.approx(scipy.stats.beta.ppf(alpha / 2, right, docs - right + 1) if right else 0.0, rel=1e-7)
    assert high == pytest.approx(
        scipy.stats.beta.ppf(1 - alpha / 2, right + 1, docs - right) if right < docs else 1.0, rel=1e-7
    )


@pytest.mark.parametrize("freedom", [1, 2, 5, 28, 1000])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.0001])
def test_students_quantiles_are_scipys(freedom: int, alpha: float) -> None:
    assert intervals.student(freedom, alpha) == pytest.approx(scipy.stats.t.ppf(1 - alpha / 2, freedom), rel=1e-7)


@pytest.mark.parametrize(
    ("a", "n", "b", "m"), [(0, 5, 5, 5), (3, 9, 4, 12), (0, 30, 0, 30), (1, 1, 0, 1), (3, 2000, 40, 2000)]
)
def test_fishers_test_is_the_smaller_tail_twice(a: int, n: int, b: int, m: int) -> None:
    of = scipy.stats.hypergeom(n + m, a + b, m)
    assert intervals.fisher(a, n, b, m) == pytest.approx(min(1.0, 2 * min(of.cdf(b), of.sf(b - 1))), rel=1e-7)


METRICS = [
    ("acc", 0.0, 1.0),
    ("bleu", 0.0, 100.0),
    ("perplexity", 1.0, math.inf),
    ("bits_per_byte", 0.0, math.inf),
    ("mcc", -1.0, 1.0),
]


@pytest.mark.parametrize(("name", "low", "high"), METRICS)
@pytest.mark.parametrize("docs", [1, 2, 5, ENOUGH - 1, ENOUGH, 500])
def test_no_interval_leaves_what_the_metric_can_be(name: str, low: float, high: float, docs: int) -> None:
    values = [low, low + 0.01, low + 0.5, *([high, high - 0.01] if math.isfinite(high) else [low + 50])]
    for value, stderr, way in itertools.product(values, [None, 0.0, 1e-9, 0.1, 30.0], ["mean", "perplexity"]):
        one = record(value, stderr=stderr, counts={"docs": docs}, metric={"name": name, "aggregation": way})
        found = intervals.interval(intervals.of_record(one))
        if found is None:
            continue
        is_scale_known = intervals.of_record(one).high == high
        assert found.low <= value <= found.high and math.isfinite(found.low + found.high)
        assert not is_scale_known or (low <= found.low and found.high <= high)
        assert found.method != NORMAL or docs >= ENOUGH
        other = intervals.of_difference(intervals.of_record(one), intervals.of_record(one))
        assert other is not None and other[0] <= 0 <= other[1]
        assert not (is_scale_known and math.isfinite(high)) or max(map(abs, other)) <= high - low


def test_a_share_in_percent_is_known_by_its_value_or_its_error() -> None:
    of = intervals.of_record
    assert (
        of(record(45.0, stderr=5.0, metric={"name": "f1"})).low,
        of(record(45.0, stderr=5.0, metric={"name": "f1"})).high,
    ) == (0, 100)
    percent = record(0.8, stderr=0.7, metric={"name": "f1", "aggregation": "mean"})
    assert of(percent).high == 100.0, "no values from 0 to 1 vary so much"
    assert of(record(0.8, stderr=0.02, metric={"name": "f1", "aggregation": "mean"})).high == 1.0


def test_the_normal_approximation_is_for_enough_documents_alone() -> None:
    methods = {}
    for right, docs in ((15, 99), (9, 500), (491, 500), (10, 100), (250, 500)):
        found = intervals.interval(intervals.of_record(of_share(right, docs)))
        methods[right, docs] = found.method if found else None
    assert methods == {(15, 99): EXACT, (9, 500): EXACT, (491, 500): EXACT, (10, 100): NORMAL, (250, 500): NORMAL}
    for docs, method in ((2, STUDENT), (ENOUGH - 1, STUDENT), (ENOUGH, NORMAL)):
        one = record(1.4, stderr=0.03, counts={"docs": docs}, metric={"name": "bits"})
        found = intervals.interval(intervals.of_record(one))
        assert found is not None and found.method == method


def test_documents_that_are_all_alike_say_how_many_others_there_can_be() -> None:
    one = record(0.5, stderr=0.0, counts={"docs": 30}, metric={"name": "f1", "aggregation": "mean"})
    found = intervals.interval(intervals.of_record(one))
    assert found is not None and (found.low, found.high) == pytest.approx(
        (0.5 - 0.5 * 0.1157, 0.5 + 0.5 * 0.1157), abs=1e-4
    )
    for metric in ({"name": "perplexity", "aggregation": "perplexity"}, {"name": "own", "aggregation": "mean"}):
        one = record(1.5, stderr=0.0, counts={"docs": 30}, metric=metric)
        assert intervals.interval(intervals.of_record(one)) is None
        assert "| 1.5000 |" in markdown_page.render_board(board.build([one]))


def test_a_few_documents_of_other_numbers_are_resampled(tmp_path: Any) -> None:
    from board_records import measured, write

    from harness.records import ledger

    scores = {number: float(value) for number, value in enumerate(GENERATOR.random(12))}
    made = measured(tmp_path, "samples_a.jsonl", scores, metric={"name": "acc"})
    built = board.build_reading(ledger.read(write(tmp_path / "records.jsonl", [record(**made)])))
    [score] = built.scores()
    assert score.interval is not None and score.interval.method == BOOTSTRAP
    values = np.array(list(scores.values()))
    _, [radius] = statistics.studentised_bootstrap(values[:, None])
    assert score.interval.high == pytest.approx(min(1.0, values.mean() + radius), rel=0.05), "in another order"


@pytest.mark.parametrize("docs", [5, 20])
def test_students_intervals_and_differences_hold_the_truth_as_often_as_they_say(docs: int) -> None:
    held = between = 0
    for _ in range(400):
        both = []
        for _ in range(2):
            values = GENERATOR.normal(0.3, 1, docs)
            both.append(Estimate(float(values.mean()), float(values.std(ddof=1)) / docs**0.5, docs))
        one, found = intervals.interval(both[0]), intervals.of_difference(*both)
        assert one is not None and found is not None
        held += one.low <= 0.3 <= one.high
        between += found[0] <= 0 <= found[1]
    assert held / 400 > 0.92 and between / 400 > 0.93


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_differences_of_shares_hold_the_truth_as_often_as_they_say(share: float) -> None:
    drawn = GENERATOR.binomial(20, share, (400, 2))
    pairs = [[Estimate(k / 20, 0.0, 20, 0.0, 1.0, right=int(k)) for k in pair] for pair in drawn]
    ends = [intervals.of_difference(*pair) for pair in pairs]
    assert np.mean([found is not None and found[0] <= 0 <= found[1] for found in ends]) >= 0.95
    assert np.mean([(intervals.p_of_difference(*pair) or 0) < 0.05 for pair in pairs]) <= 0.05


EDGES: list[list[float]] = [[0.0], [1.0], [0.3], [0.0] * 30, [1.0] * 30, [0.5] * 30, [0.0] * 29 + [1.0],
                            [0.1 * n for n in range(10)], [1e-320, 0.0], [1e300, -1e300], [7.0] * 2, [math.pi] * 50]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in EDGES for b in EDGES if len(a) == len(b)])
def test_pairs_at_the_edges_give_numbers_and_no_interval_beyond_what_can_be(
    first: list[float], second: list[float]
) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        found = statistics.compare(first, second)
    assert 0 < found.p <= 1 and not math.isnan(found.difference)
    assert (found.low is None) == (found.high is None)
    if found.low is not None and found.high is not None:
        assert found.low <= found.difference + 1e-9 and found.difference <= found.high + 1e-9
        is_share = min(*first, *second) >= 0 and max(*first, *second) <= 1
        assert not is_share or (found.test == statistics.BOOTSTRAP or (found.low >= -1 and found.high <= 1))
    if first == second:
        assert found.p == 1 and found.difference == 0


def test_ranks_of_a_few_documents_tell_apart_what_an_exact_interval_does() -> None:
    def ranks(*records: Record) -> dict[str, int | None]:
        [table] = board.build(list(records)).tables
        return {row.label: row.scores["acc", "none"].rank for row in table.rows}

    assert ranks(of_share(0, 1), of_share(1, 1)) == {"p:of0": 1, "p:of1": 1}, "one document tells nothing"
    assert ranks(of_share(0, 3), of_share(3, 3)) == {"p:of0": 1, "p:of3": 1}
    assert ranks(of_share(0, 30), of_share(30, 30)) == {"p:of0": 2, "p:of30": 1}
    assert ranks(of_share(0, 30), of_share(1, 30)) == {"p:of0": 1, "p:of1": 1}


def test_an_unpaired_difference_of_a_few_documents_is_fishers_and_stays_between_minus_one_and_one() -> None:
    [table] = board.build([of_share(1, 5, method="baseline", plugin={"name": None}), of_share(5, 5)]).tables
    [difference] = [row.scores["acc", "none"].difference for row in table.rows if not row.first.is_baseline]
    assert difference is not None and not difference.is_paired and difference.verdict == "better"
    assert difference.p == pytest.approx(10 / 210), (
        "of 210 ways to draw 5 of 10 with 6 right, 5 have all right: 5 / 210, twice"
    )
    assert difference.low is not None and difference.high is not None
    assert 0 < difference.low < difference.value < difference.high <= 1


def test_compare_without_samples_stays_within_what_the_metric_can_be(tmp_path: Any) -> None:
    sides = [
        Side(name, (Sourced(of_share(right, 5, method=name, plugin={"name": name}), tmp_path / "x"),))
        for name, right in (("a", 0), ("b", 5))
    ]
    [row] = compare(sides, Request()).rows
    assert row.low is not None and row.high is not None and 0 < row.low < 1 and row.high == 1.0
    assert not row.is_paired and row.p is None


def test_an_interval_and_the_p_beside_it_are_of_one_family_and_the_page_says_what_gives_the_verdict() -> None:
    text = page.render(board.build([baseline(0.5, stderr=0.02), record(0.7, stderr=0.02)]))
    assert "Difference [95 %] p" in text and "each by itself" in text and "after Holm’s correction" in text
    assert "95 % intervals, not adjusted" in text
