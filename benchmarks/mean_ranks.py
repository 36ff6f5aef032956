"""How well ranks keep their promises, over tasks and on the documents of one; run as ``python benchmarks/mean_ranks.py``.

Simulates boards of some methods on some tasks: how often the 95 % interval of a mean rank holds the true one, and how often all
methods share the first place where none differs (95 % or more is right); then tables of one task whose rows answer the same
documents, none better than another. Prints Markdown; the same seed, the same figures.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from harness.board import ranking
from harness.board.mean_ranks import mean_ranks, task_ranks
from harness.board.scores_by_document import ByDocument
from harness.records.intervals import Estimate, with_values

METHODS, TASKS = (2, 3, 5, 10, 20), (2, 3, 4, 6, 8, 12, 16, 17, 20, 40)
# Tasks that the true mean ranks are taken from.
MANY = 50_000
# Rows and documents of a table; whether a document is right or wrong. Two rows' answers correlate by a half.
TABLES = ((5, 40, True), (5, 200, True), (20, 200, True), (20, 500, False), (50, 1_000, True))


def main() -> int:
    """Simulate and print; 1 when fewer boards than 93 % are one tie group, beyond the noise of the simulation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", type=int, default=600, metavar="N", help="simulated per cell (default 600)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default 0)")
    arguments = parser.parse_args()
    draw = np.random.default_rng(arguments.seed)
    least = 0.95 - 3 * (0.95 * 0.05 / arguments.boards) ** 0.5
    is_wrong = False
    print("| methods | tasks | coverage | one tie group where none differs |\n|---|---|---|---|")
    for methods in METHODS:
        means = np.linspace(0, 1, methods)
        true = task_ranks(means + draw.normal(size=(MANY, methods))).mean(axis=0)
        for tasks in TASKS:
            held, alone = [], []
            for _ in range(arguments.boards):
                found = mean_ranks(means + draw.normal(size=(tasks, methods)))
                held.append([(one.low or 0) <= rank <= (one.high or 0) for one, rank in zip(found, true, strict=True)])
                alone.append(all(one.place == 1 for one in mean_ranks(draw.normal(size=(tasks, methods)))))
            print(f"| {methods} | {tasks} | {np.mean(held):.3f} | {np.mean(alone):.3f} |", flush=True)
            is_wrong |= bool(np.mean(alone) < least)
    print("\n| rows | documents | scores | one tie group where none differs |\n|---|---|---|---|")
    for rows, documents, is_right_or_wrong in TABLES:
        shared = np.mean([_is_tied(rows, documents, is_right_or_wrong, draw) for _ in range(arguments.boards)])
        kind = "right or wrong" if is_right_or_wrong else "normal"
        print(f"| {rows} | {documents:,} | {kind} | {shared:.3f} |", flush=True)
        is_wrong |= bool(shared < least)
    return int(is_wrong)


def _is_tied(rows: int, documents: int, is_right_or_wrong: bool, draw: np.random.Generator) -> bool:
    """Return whether all rows of a table share the first rank, none being better than another."""
    names, ability = tuple(map(str, range(documents))), draw.normal(size=documents)
    entries = []
    for _ in range(rows):
        values = (ability + draw.normal(size=documents)) / 2**0.5
        values = (values > 0).astype(float) if is_right_or_wrong else values
        mean, error = float(values.mean()), float(values.std(ddof=1)) / documents**0.5
        known = with_values(Estimate(mean, error, documents), values)
        entries.append(ranking.Entry(mean, error, ByDocument(names, values), known))
    return all(rank == 1 for rank, _ in ranking.ranks(entries, higher_is_better=True).values())


if __name__ == "__main__":
    sys.exit(main())
