"""How well the tests of ``harness compare`` keep their promises; run as ``python benchmarks/comparing.py``.

Simulates comparisons of two models on the same documents: how often a difference is shown where there is none (5 % is right),
how often the 95 % interval holds the true one, how often a true one is found. Prints Markdown; the same seed, the same figures.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from harness.records import statistics as ours
from harness.records.aggregation import AGGREGATIONS, document_values, pseudo_values

CORRELATIONS = (0.5, 0.9)
ACCURACY, GAIN = 0.6, 0.03
FAMILY = 10
CHUNK = 4_000
RESAMPLES = 999
# Of scores that are made without each document in turn, whose time grows with the square of them.
MOST_LEFT_OUT = 500
Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Kind:
    """A kind of metric: values of one model's documents from standard normal abilities, and the effect to be found."""

    name: str
    values: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    effect: float
    is_shares: bool = False


@dataclass(frozen=True)
class Size:
    """How much is simulated: comparisons per setting, documents of a task, and from which seed."""

    comparisons: int
    documents: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Miss:
    """A figure outside its target.

    ``is_wrong``: more false alarms than promised, not fewer. ``is_certain``: by more than two standard errors of the
    simulation.
    """

    text: str
    is_wrong: bool
    is_certain: bool


def main() -> int:
    """Simulate and print; 1 when there are more false alarms than promised, beyond the noise of the simulation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--comparisons", type=int, default=4_000, metavar="N", help="simulated per setting (default 4000)"
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[30, 500, 2_000], metavar="N", help="of a task")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default 0)")
    tables = {"pairs": _pairs, "families": _families, "whole": _aggregates}
    parser.add_argument("--tables", nargs="+", choices=tables, default=list(tables), help="to simulate (default: all)")
    arguments = parser.parse_args()
    start = time.process_time()
    size = Size(arguments.comparisons, tuple(arguments.documents), arguments.seed)
    misses = [miss for table in arguments.tables for miss in tables[table](size)]
    noise, seconds = 100 * math.sqrt(0.05 * 0.95 / arguments.comparisons), time.process_time() - start
    print(
        f"{arguments.comparisons:,} comparisons per setting (half for the last two tables), so 5 % is known to", end=" "
    )
    print(
        f"±{noise:.1f} points, one standard error; {seconds:.0f} s of one CPU. Outside the targets by more than two of these:\n"
    )
    certain = [miss for miss in misses if miss.is_certain]
    print(f"- too many false alarms: {_sentence([miss.text for miss in certain if miss.is_wrong])}")
    print(f"- fewer than promised: {_sentence([miss.text for miss in certain if not miss.is_wrong])}")
    print(f"\nOutside by less: {_sentence([miss.text for miss in misses if not miss.is_certain])}")
    return 1 if any(miss.is_wrong for miss in certain) else 0


def _sentence(texts: list[str]) -> str:
    return "; ".join(texts or ["none"]) + "."


def _pairs(size: Size) -> Iterator[Miss]:
    """Print the table of single comparisons; yield what misses its target."""
    print("| metric | r | documents | type-I | coverage | power | power at detectable |", end="")
    print(" unpaired z: type-I, power | exact McNemar: type-I, power |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        for correlation in CORRELATIONS:
            for n in size.documents:
                figures = (_shares if kind.is_shares else _means)(kind, n, correlation, size)
                found = f"{figures.false:.3f} | {figures.coverage:.3f} | {figures.power:.3f} | {figures.least:.2f}"
                print(f"| {kind.name} | {correlation} | {n:,} | {found} | {figures.others} |", flush=True)
                where = f"{kind.name}, r {correlation}, {n:,} documents"
                yield from _misses(figures.false, figures.coverage, where, size.comparisons)
    print()


def _misses(false: float, coverage: float, where: str, comparisons: int) -> Iterator[Miss]:
    noise = 2 * math.sqrt(0.05 * 0.95 / comparisons)
    if not 0.035 <= false <= 0.055:
        yield Miss(f"type-I {false:.3f} ({where})", false > 0.055, not 0.035 - noise <= false <= 0.055 + noise)
    if not 0.94 <= coverage <= 0.96:
        yield Miss(f"coverage {coverage:.3f} ({where})", coverage < 0.94, not 0.94 - noise <= coverage <= 0.96 + noise)


@dataclass(frozen=True)
class Figures:
    """Shares of simulated comparisons.

    ``false``: shown though there is no difference; ``power``: a true one is shown; ``least``: one of the size called
    detectable is. ``others`` is text: the same of two other tests.
    """

    false: float
    coverage: float
    power: float
    least: float
    others: str


def _shares(kind: Kind, n: int, correlation: float, size: Size) -> Figures:
    generator = _generator(size.seed, n, correlation, kind.name)
    unpaired, exact = [], []

    def simulate(effect: float) -> tuple[float, float, float]:
        """Return the shares shown and held, and the mean of what is called detectable."""
        a, b = _two_sides(kind, n, correlation, effect, size.comparisons, generator)
        lost, won = (a > b).sum(axis=0), (b > a).sum(axis=0)
        counts = list(zip(lost.tolist(), won.tolist(), strict=True))
        low, high = ours.share_interval(lost, won, n)
        unpaired.append(f"{_unpaired(a, b).mean():.3f}")
        exact.append(f"{np.mean([_exact(*pair) <= 0.05 for pair in counts]):.3f}")
        held = (low <= effect) & (effect <= high)
        shown = np.mean([_midp(*pair) <= 0.05 for pair in counts])
        return float(shown), float(held.mean()), float(np.mean([_detectable(*pair, n) for pair in counts]))

    false, _, detectable = simulate(0.0)
    power, coverage, _ = simulate(kind.effect)
    least, _, _ = simulate(min(detectable, 0.99 - ACCURACY))
    return Figures(false, coverage, power, least, f"{', '.join(unpaired[:2])} | {', '.join(exact[:2])}")


def _means(kind: Kind, n: int, correlation: float, size: Size) -> Figures:
    """One simulation gives all figures: a constant added to every difference moves the interval and nothing else."""
    generator = _generator(size.seed, n, correlation, kind.name)
    parts = []
    for start in range(0, size.comparisons, CHUNK):
        a, b = _two_sides(kind, n, correlation, 0.0, min(CHUNK, size.comparisons - start), generator)
        p, radius = ours.studentised_bootstrap(b - a, resamples=RESAMPLES)
        means = (b - a).mean(axis=0)
        detectable = [ours.detectable_mean(float(x), n) for x in (b - a).std(axis=0, ddof=1)]
        others = [_unpaired(a, b + effect) for effect in (0.0, kind.effect)]
        parts.append((p <= 0.05, np.abs(means) <= radius, means, radius, np.array(detectable), *others))
    false, held, means, radius, detectable, *others = (np.concatenate(part) for part in zip(*parts, strict=True))
    power, least = (float((np.abs(means + effect) > radius).mean()) for effect in (kind.effect, detectable.mean()))
    texts = ", ".join(f"{other.mean():.3f}" for other in others)
    return Figures(float(false.mean()), float(held.mean()), power, least, f"{texts} |")


def _generator(seed: int, n: int, correlation: float, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, n, round(10 * correlation), len(name)])


def _unpaired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return whether a z-test on two standard errors shows a difference, as lm-eval's script has it."""
    variance = (a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / len(a)
    return np.abs(b.mean(axis=0) - a.mean(axis=0)) > Z * np.sqrt(variance)


_midp, _detectable = cache(ours.mcnemar), cache(ours.detectable_share)


@cache
def _exact(lost: int, won: int) -> float:
    fewer, total = min(lost, won), lost + won
    return min(1.0, 2 * sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total)


def _two_sides(
    kind: Kind, n: int, correlation: float, effect: float, columns: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return values (N, S) of two models whose abilities on a document correlate; the second is better by ``effect``."""
    shared = math.sqrt(correlation) * generator.standard_normal((n, columns))
    own = math.sqrt(1 - correlation)
    a = kind.values(shared + own * generator.standard_normal((n, columns)), generator)
    shift = (
        NormalDist().inv_cdf(min(ACCURACY + effect, 0.999)) - NormalDist().inv_cdf(ACCURACY) if kind.is_shares else 0.0
    )
    b = kind.values(shared + own * generator.standard_normal((n, columns)) + shift, generator)
    return a, b if kind.is_shares else b + effect


def _right(ability: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return (ability > NormalDist().inv_cdf(1 - ACCURACY)).astype(np.float64)


def _seeds(ability: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the mean over three seeds of a metric of 0 and 1."""
    runs = (math.sqrt(0.9) * ability + math.sqrt(0.1) * generator.standard_normal(ability.shape) for _ in range(3))
    return sum(_right(run, generator) for run in runs) / 3


KINDS = (
    Kind("right or wrong", _right, GAIN, is_shares=True),
    Kind("continuous", lambda ability, _: ability, 0.1),
    Kind("graded, 0 to 1", lambda ability, _: np.clip(0.5 + 0.6 * ability, 0, 1), 0.04),
    Kind("mean of three seeds", _seeds, GAIN),
    Kind("long-tailed", lambda ability, _: np.exp(ability), 0.2),
)


def _families(size: Size) -> Iterator[Miss]:
    """Print how often at least one of ten tasks without a difference is called different, with Holm and without."""
    print(
        f"| family of {FAMILY} tasks, r 0.9 | documents each | any shown, uncorrected | Holm | Holm, half of them better |"
    )
    print("|---|---|---|---|---|")
    families = max(size.comparisons // 2, 1)
    for kind in KINDS[:2]:
        for n in size.documents:
            null, half = (_p_values(kind, n, families, effects, size.seed + 3) for effects in (0, FAMILY // 2))
            corrected, mixed = _any_shown(null, 0), _any_shown(half, FAMILY // 2)
            plain = float((null <= 0.05).any(axis=1).mean())
            print(f"| {kind.name} | {n:,} | {plain:.3f} | {corrected:.3f} | {mixed:.3f} |", flush=True)
            error, noise = max(corrected, mixed), 2 * math.sqrt(0.05 * 0.95 / families)
            if error > 0.05:
                yield Miss(f"Holm family error {error:.3f} ({kind.name}, {n:,} documents)", True, error > 0.05 + noise)
    print()


def _p_values(kind: Kind, n: int, families: int, with_effect: int, seed: int) -> np.ndarray:
    """Return p (families, tasks), the first ``with_effect`` tasks truly better."""
    generator = np.random.default_rng([seed, n, with_effect, len(kind.name)])
    columns = []
    for task in range(FAMILY):
        effect = 2 * kind.effect if task < with_effect else 0.0
        a, b = _two_sides(kind, n, 0.9, effect, families, generator)
        if kind.is_shares:
            counts = zip((a > b).sum(axis=0).tolist(), (b > a).sum(axis=0).tolist(), strict=True)
            columns.append(np.array([_midp(*pair) for pair in counts]))
        else:
            columns.append(ours.studentised_bootstrap(b - a, resamples=RESAMPLES, seed=task)[0])
    return np.stack(columns, axis=1)


def _any_shown(p_values: np.ndarray, with_effect: int) -> float:
    return float(np.mean([min(ours.holm(row)[with_effect:]) <= 0.05 for row in p_values]))


def _aggregates(size: Size) -> Iterator[Miss]:
    """Print coverage and type-I for scores that are no means, r 0.9."""
    print("| score of the whole set, r 0.9 | documents | type-I | coverage |")
    print("|---|---|---|---|")
    makers = {"perplexity": _logs, "f1": _classes, "spearman": _similarities, "v_measure": _clusters}
    for name, make in makers.items():
        for n in size.documents:
            if AGGREGATIONS[name].of_means is None and n > MOST_LEFT_OUT:
                continue
            null, real = (
                _aggregate_figures(name, make, n, effect, size.comparisons // 2, size.seed + 4) for effect in (0.0, 0.1)
            )
            print(f"| {name} | {n:,} | {null[0]:.3f} | {real[1]:.3f} |", flush=True)
            yield from _misses(null[0], real[1], f"{name}, {n:,} documents", size.comparisons // 2)
    print()


def _aggregate_figures(
    name: str, make: Callable[..., np.ndarray], n: int, effect: float, comparisons: int, seed: int
) -> tuple[float, float]:
    generator = np.random.default_rng([seed, n, len(name)])
    sides = [_whole(name, side) for side in make(generator, 400_000, effect)]
    truth = sides[1] - sides[0]
    differences, errors = np.empty((n, comparisons)), np.empty(comparisons)
    for comparison in range(comparisons):
        (a, first), (b, second) = (_added(name, side) for side in make(generator, n, effect))
        differences[:, comparison], errors[comparison] = b - a, second - first - truth
    p, radius = ours.studentised_bootstrap(differences, resamples=RESAMPLES)
    return float((p <= 0.05).mean()), float((np.abs(errors) <= radius).mean())


def _whole(name: str, values: np.ndarray) -> float:
    entry = AGGREGATIONS[name]
    if entry.columns is None or entry.of_means is None:
        assert entry.score is not None
        return entry.score(values.tolist())
    return float(entry.of_means(entry.columns(values).mean(axis=0)))


def _added(name: str, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what each document adds to a score, and the score."""
    entry = AGGREGATIONS[name]
    if entry.columns is None or entry.of_means is None:
        added, score, _ = document_values(values.tolist(), name, None)
        return added, score
    return pseudo_values(entry.columns(values), entry.of_means)


def _logs(generator: np.random.Generator, n: int, effect: float) -> np.ndarray:
    """Return log-likelihoods (2, N) of one number a document."""
    shared = math.sqrt(0.9) * generator.standard_normal(n)
    return np.stack(
        [-2 + 0.5 * (shared + math.sqrt(0.1) * generator.standard_normal(n) + shift) for shift in (0, effect)]
    )


def _classes(generator: np.random.Generator, n: int, effect: float) -> np.ndarray:
    """Return gold and predicted classes (2, N, 2)."""
    gold = (generator.random(n) < 0.4).astype(np.float64)
    shared = math.sqrt(0.9) * generator.standard_normal(n)
    sides = []
    for shift in (0, effect):
        ability = shared + math.sqrt(0.1) * generator.standard_normal(n) + shift
        sides.append(np.stack([gold, np.where(ability > -0.7, gold, 1 - gold)], axis=1))
    return np.stack(sides)


def _similarities(generator: np.random.Generator, n: int, effect: float) -> np.ndarray:
    """Return what people say of pairs and how alike a model finds them (2, N, 2)."""
    gold = generator.standard_normal(n)
    shared = math.sqrt(0.9) * generator.standard_normal(n)
    own = [shared + math.sqrt(0.1) * generator.standard_normal(n) for _ in range(2)]
    sides = [(1 + more) * gold + noise for more, noise in zip((0.0, 2 * effect), own, strict=True)]
    return np.stack([np.stack([np.round(2 * gold), side], axis=1) for side in sides])


def _clusters(generator: np.random.Generator, n: int, effect: float) -> np.ndarray:
    """Return labels and clusters (2, N, 2), of which some are wrong."""
    gold, wrong = generator.integers(5, size=n), generator.integers(5, size=n)
    shared = math.sqrt(0.9) * generator.standard_normal(n)
    sides = []
    for shift in (0.0, effect):
        is_right = shared + math.sqrt(0.1) * generator.standard_normal(n) + shift > -0.5
        sides.append(np.stack([gold, np.where(is_right, gold, wrong)], axis=1))
    return np.stack(sides)


if __name__ == "__main__":
    sys.exit(main())
