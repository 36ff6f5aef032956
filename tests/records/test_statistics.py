"""The paired statistics: against scipy, by hand, at the edges, and by a small simulation."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from harness.records import statistics

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COUNTS = [(0, 0), (0, 1), (1, 0), (3, 9), (5, 5), (0, 6), (40, 60), (500, 430), (2_000, 1_900)]


@pytest.mark.parametrize(("lost", "won"), COUNTS)
def test_mcnemar_is_the_binomial_test_with_half_the_weight_of_the_outcome(lost: int, won: int) -> None:
    fewer, total = min(lost, won), lost + won
    expected = min(1.0, 2 * scipy.stats.binom.cdf(fewer, total, 0.5) - scipy.stats.binom.pmf(fewer, total, 0.5))
    assert statistics.mcnemar(lost, won) == pytest.approx(expected, rel=1e-9)
    assert statistics.mcnemar(lost, won) == statistics.mcnemar(won, lost)


def test_mcnemar_by_hand() -> None:
    # Of three flips all one way: 2 * (1/8) / 2 = 1/8; of one flip 1/2.
    assert statistics.mcnemar(0, 3) == pytest.approx(0.125)
    assert statistics.mcnemar(1, 0) == pytest.approx(0.5)
    assert statistics.mcnemar(0, 0) == 1


def test_p_is_never_zero() -> None:
    assert 0 < statistics.mcnemar(0, 100_000) < 1e-300
    assert statistics.compare(np.zeros(5_000), np.ones(5_000)).p > 0
    assert statistics.compare(np.arange(50.0), np.arange(50.0) + 1 + np.arange(50.0) / 100).p > 0


@pytest.mark.parametrize(
    ("lost", "won", "n"), [(3, 9, 30), (0, 1, 44), (5, 1, 20), (40, 60, 500), (0, 0, 30), (12, 2, 14)]
)
def test_the_limits_for_shares_are_where_the_score_test_just_refuses(lost: int, won: int, n: int) -> None:
    for limit in statistics.share_interval(lost, won, n):
        difference = float(limit)
        if abs(difference) == 1:
            continue

        def unlikely(only_first: float, difference: float = difference) -> float:
            """Minus the log-likelihood when the second side's share is larger by ``difference``."""
            both = 1 - 2 * only_first - difference
            shares = [(lost, only_first), (won, only_first + difference), (n - lost - won, both)]
            return -sum(count * math.log(max(share, 1e-300)) for count, share in shares if count)

        bounds = max(0.0, -difference), (1 - difference) / 2
        found = scipy.optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        variance = n * (2 * found + difference * (1 - difference))
        statistic = (won - lost - n * difference) / math.sqrt(variance)
        assert abs(statistic) == pytest.approx(scipy.stats.norm.ppf(0.975), rel=1e-4)


@pytest.mark.parametrize("shares", [(0.16, 0.16), (0.16, 0.19), (0.07, 0.07), (0.055, 0.085), (0.10, 0.20)])
def test_the_interval_for_shares_holds_the_truth_at_thirty_documents(shares: tuple[float, float]) -> None:
    only_first, only_second = shares
    lost, won = (grid.ravel() for grid in np.meshgrid(np.arange(31), np.arange(31)))
    possible = lost + won <= 30
    lost, won = lost[possible], won[possible]
    counts = np.stack([lost, won, 30 - lost - won], axis=1)
    chance = scipy.stats.multinomial.pmf(counts, 30, [only_first, only_second, 1 - only_first - only_second])
    low, high = statistics.share_interval(lost, won, 30)
    truth = only_second - only_first
    assert 0.94 <= chance[(low <= truth) & (truth <= high)].sum() <= 0.97


def test_without_flips_the_interval_for_shares_still_has_a_width() -> None:
    low, high = statistics.share_interval(0, 0, 30)
    z = scipy.stats.norm.ppf(0.975)
    assert (-low, high) == pytest.approx((z**2 / (30 + z**2),) * 2)


@pytest.mark.parametrize("n", [30, 500])
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_the_bootstrap_agrees_with_students_test_where_that_is_exact(n: int, shift: float) -> None:
    generator = np.random.default_rng(n)
    a = generator.normal(size=n)
    b = a + shift + 0.7 * generator.normal(size=n)
    found, expected = statistics.compare(a, b), scipy.stats.ttest_rel(b, a)
    interval = expected.confidence_interval()
    assert found.test == statistics.BOOTSTRAP
    assert found.p == pytest.approx(expected.pvalue, abs=0.02)
    assert found.low == pytest.approx(interval.low, abs=0.1 * (interval.high - interval.low))
    assert found.high == pytest.approx(interval.high, abs=0.1 * (interval.high - interval.low))


def test_the_bootstrap_agrees_with_scipys_on_skewed_differences() -> None:
    differences = np.random.default_rng(1).exponential(size=400) - 0.9
    found = statistics.compare_differences(differences)
    theirs = scipy.stats.bootstrap((differences,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


@pytest.mark.parametrize("shift", np.linspace(0, 0.8, 9))
def test_the_interval_of_the_bootstrap_leaves_out_zero_just_when_p_is_small(shift: float) -> None:
    differences = np.random.default_rng(2).normal(size=40) + shift
    found = statistics.compare_differences(differences)
    assert found.low is not None and found.high is not None
    assert (found.low > 0 or found.high < 0) == (found.p <= 0.05)


def test_the_same_seed_gives_the_same_result_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(3).normal(size=(70, 2)) + 0.1
    whole = statistics.studentised_bootstrap(differences, seed=5)
    monkeypatch.setattr(statistics, "BLOCK", 1_000)
    blocks = statistics.studentised_bootstrap(differences, seed=5)
    np.testing.assert_allclose(whole, blocks)
    assert not np.array_equal(whole[1], statistics.studentised_bootstrap(differences, seed=6)[1])


def test_many_documents_are_resampled_fewer_times_and_never_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_DRAWN", 100_000)
    p, _ = statistics.studentised_bootstrap(np.random.default_rng(4).normal(size=(5_000, 1)) + 1)
    assert p[0] == pytest.approx(1 / (statistics.FEWEST_RESAMPLES + 1))


def test_documents_that_are_right_or_wrong_get_mcnemar() -> None:
    a, b = np.array([0, 0, 0, 0, 1, 1, 0, 1]), np.array([1, 1, 1, 0, 1, 0, 1, 1])
    found = statistics.compare(a, b)
    assert (found.test, found.difference, found.p) == (statistics.MCNEMAR, 3 / 8, statistics.mcnemar(1, 4))


def test_any_two_outcomes_are_right_and_wrong() -> None:
    a, b = np.array([0, 0, 1, 1, 0, 1.0]), np.array([1, 1, 1, 0, 0, 1.0])
    plain, scaled = statistics.compare(a, b), statistics.compare(a * 4 / 3 - 1 / 3, b * 4 / 3 - 1 / 3)
    assert scaled.p == plain.p
    for name in ("difference", "low", "high", "detectable"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name) * 4 / 3)


def test_one_document_shows_nothing() -> None:
    assert statistics.compare([0.2], [0.7]).p == 1
    assert statistics.compare([0], [1]).p == 0.5
    assert statistics.compare([2.5], [2.5]) == statistics.Paired(0.0, None, None, 1.0, None, statistics.BOOTSTRAP)


def test_scores_between_zero_and_one_that_never_differ_are_bounded_as_flips_are() -> None:
    values = np.linspace(0, 1, 30)
    assert statistics.compare(values, values) == statistics.compare(np.zeros(30), np.zeros(30))


def test_a_few_documents_that_differ_detect_no_less_than_documents_that_flip() -> None:
    values = np.linspace(0, 1, 100)
    other = values + np.where(np.arange(100) < 2, 0.5, 0)
    detectable = statistics.compare(values, other).detectable
    assert detectable == pytest.approx(0.5 * statistics.detectable_share(2, 0, 100))
    assert detectable > 0.03


def test_equal_sides_differ_by_nothing() -> None:
    values = np.random.default_rng(5).normal(size=50)
    assert statistics.compare(values, values).p == 1
    assert statistics.compare(np.ones(50), np.ones(50)).p == 1


def test_rounding_is_no_difference() -> None:
    values = 1 + np.random.default_rng(6).random(50)
    found = statistics.compare(values, values * (1 + 1e-13))
    assert (found.difference, found.p) == (0, 1)


def test_the_same_difference_everywhere_counts_by_its_sign() -> None:
    values = np.random.default_rng(7).random(10)
    found = statistics.compare(values, values + 0.25)
    assert found.p == pytest.approx(2 * 0.5**10)
    assert found.low is None and found.high is None and found.detectable is None


def test_one_document_that_differs_among_many_is_no_evidence() -> None:
    a, b = np.linspace(0, 1, 30), np.linspace(0, 1, 30)
    b[4] += 0.3
    found = statistics.compare(a, b)
    assert found.p > 0.2
    assert found.low is not None and found.high is not None
    assert found.low < 0 < found.high < 0.1


def test_no_documents_are_an_error() -> None:
    with pytest.raises(ValueError, match="same documents"):
        statistics.compare([], [])
    with pytest.raises(ValueError, match="same documents"):
        statistics.compare([1, 0], [1])


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert statistics.holm([]) == []


@pytest.mark.parametrize(("flips", "n"), [(0.3, 500), (0.15, 500), (0.3, 100)])
def test_the_detectable_share_is_found_four_times_in_five(flips: float, n: int) -> None:
    detectable = statistics.detectable_share(round(n * flips / 2), round(n * flips / 2), n)
    generator = np.random.default_rng(8)
    won = generator.binomial(n, (flips + detectable) / 2, 4_000)
    lost = generator.binomial(n - won, (flips - detectable) / 2 / (1 - (flips + detectable) / 2))
    found = [statistics.mcnemar(a, b) <= 0.05 for a, b in zip(lost.tolist(), won.tolist(), strict=True)]
    assert 0.76 <= np.mean(found) <= 0.88


@pytest.mark.parametrize("n", [10, 30, 200])
def test_the_detectable_mean_is_found_four_times_in_five(n: int) -> None:
    size = statistics.detectable_mean(1.0, n)
    shown = scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, n - 1), n - 1, size * math.sqrt(n))
    assert shown == pytest.approx(0.8, abs=0.02)


def test_more_documents_detect_smaller_differences() -> None:
    sizes = [statistics.detectable_share(n // 10, n // 10, n) for n in (10, 30, 100, 1_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < sizes[-1] < sizes[0] <= 1


@pytest.mark.parametrize("n", [30, 500])
@pytest.mark.parametrize("kind", ["normal", "graded"])
def test_false_alarms_are_about_one_in_twenty(n: int, kind: str) -> None:
    generator = np.random.default_rng(9)
    shared = generator.normal(size=(n, 2_000))
    sides = [shared + 0.6 * generator.normal(size=shared.shape) for _ in range(2)]
    if kind == "graded":
        sides = [np.clip(side * 0.5 + 0.5, 0, 1) for side in sides]
    p, _ = statistics.studentised_bootstrap(sides[1] - sides[0], resamples=999)
    assert 0.035 <= (p <= 0.05).mean() <= 0.065


def test_the_benchmark_prints_its_tables() -> None:
    words = [sys.executable, str(BENCHMARKS / "comparing.py"), "--comparisons", "20", "--documents", "30"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    assert "| right or wrong | 0.9 | 30 |" in done.stdout
    assert "too many false alarms" in done.stdout


def test_the_benchmark_of_that_name_does_not_hide_pythons_module() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import statistics; print(statistics.median([1, 2, 9]))"
    done = subprocess.run([sys.executable, "-c", code, str(BENCHMARKS)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2", done.stderr
