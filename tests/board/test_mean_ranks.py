"""Ranks over tasks, by hand and by scipy."""

from __future__ import annotations

import numpy
import pytest
import scipy.stats

from harness.board import mean_ranks
from harness.board.mean_ranks import task_ranks


def test_equal_values_share_the_mean_of_their_ranks_as_scipy_has_it() -> None:
    values = numpy.random.default_rng(0).integers(0, 5, size=(50, 9)) / 4
    expected = scipy.stats.rankdata(-values, axis=1)
    numpy.testing.assert_array_equal(task_ranks(values), expected)
    nearly = values + numpy.random.default_rng(1).normal(scale=1e-15, size=values.shape)
    numpy.testing.assert_array_equal(task_ranks(nearly), expected)


def test_a_score_that_went_astray_makes_no_others_equal() -> None:
    perplexities = numpy.array([[1e15, 20.0, 25.0, 30.0]])
    numpy.testing.assert_array_equal(task_ranks(-perplexities), [[4, 1, 2, 3]])


def test_the_interval_is_student_s_over_tasks_within_the_ranks_there_are() -> None:
    values = numpy.random.default_rng(2).normal(size=(40, 4))
    ranks = task_ranks(values)
    for one, column in zip(mean_ranks.mean_ranks(values), ranks.T, strict=True):
        expected = scipy.stats.t.interval(0.95, 39, loc=column.mean(), scale=scipy.stats.sem(column))
        assert (one.mean, one.low, one.high) == pytest.approx((column.mean(), *expected))
    few = mean_ranks.mean_ranks(values[:3])
    assert all(
        one.low is not None and one.high is not None and 1 <= one.low <= one.mean <= one.high <= 4 for one in few
    )
    [first, second] = mean_ranks.mean_ranks(numpy.tile([1.0, 0.0], (8, 1)))
    share = scipy.stats.binomtest(0, 8).proportion_ci()
    assert (first.low, first.high) == pytest.approx((1.0, 1 + share.high)), "who won every task may still lose some"
    assert (second.low, second.high) == pytest.approx((2 - share.high, 2.0))
    assert [one.low for one in mean_ranks.mean_ranks(values[:1])] == [None] * 4


@pytest.mark.parametrize(("tasks", "places"), [(5, [1, 1]), (6, [1, 2]), (30, [1, 2])])
def test_of_two_methods_one_is_better_once_it_won_six_tasks_of_six(tasks: int, places: list[int]) -> None:
    found = mean_ranks.mean_ranks(numpy.tile([1.0, 0.0], (tasks, 1)))
    assert [one.place for one in found] == places
    assert [one.is_tied for one in found] == [places == [1, 1]] * 2


@pytest.mark.parametrize("tasks", [9, 25])
def test_pairs_are_tested_by_swapping_and_with_many_tasks_by_student_over_all_pairs(tasks: int) -> None:
    values = numpy.random.default_rng(3).normal(size=(tasks, 3)) + numpy.array([3, 0.8, 0])
    ranks = task_ranks(values)
    better = [0] * 3
    for one in range(3):
        for other in range(3):
            difference = ranks[:, one] - ranks[:, other]
            if tasks > mean_ranks.MOST_SWAPPED:
                p = scipy.stats.ttest_1samp(difference, 0).pvalue if one != other else 1.0
            else:
                p = scipy.stats.permutation_test(
                    (difference,), numpy.mean, permutation_type="samples", n_resamples=numpy.inf
                ).pvalue
            better[one] += int(p <= 0.05 / 3 and difference.mean() > 0)
    assert [one.place for one in mean_ranks.mean_ranks(values)] == [1 + count for count in better]
    assert max(better) > 0


def test_where_no_method_differs_nearly_all_boards_are_one_tie_group() -> None:
    """Issue 17: null boards put everything in one tie group in 95 % of draws (300 draws here; the rest in benchmarks)."""
    draw = numpy.random.default_rng(4)
    for methods, tasks in ((2, 7), (6, 10), (5, 40)):
        alone = [
            all(one.place == 1 for one in mean_ranks.mean_ranks(draw.normal(size=(tasks, methods)))) for _ in range(100)
        ]
        assert sum(alone) >= 89, (methods, tasks)


def test_thousands_of_methods_have_ranks_and_no_places() -> None:
    found = mean_ranks.mean_ranks(numpy.random.default_rng(5).normal(size=(4, 3_000)))
    assert all(one.place is None and 1 <= one.mean <= 3_000 for one in found)
