"""A board's answer: over all tasks, which method is best, what it gains and loses, and what it costs.

Tables that share a method stand in one block, whose tasks are columns; in a block each model has rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy

from harness.board.columns import Column, RowKey, columns_of, rows_over, score_of, told_rows
from harness.board.mean_ranks import MeanRank, mean_ranks
from harness.board.ranking import Difference, with_verdict
from harness.board.retention import Retention, retention_of, signed_columns
from harness.board.settings import RETENTION
from harness.board.tables import Board, Row, Score
from harness.names import counted
from harness.records.labels import untold_options
from harness.records.record import Record
from harness.records.statistics import holm


@dataclass(frozen=True, slots=True)
class Cost:
    """What a row took, means over its seeds; None where its records do not say.

    Attributes:
        training_seconds: of the method, before any question.
        tokens_trained: by one seed.
        peak_bytes: the largest of training and evaluation.
        weights_changed: share of the model's parameters.
    """

    training_seconds: float
    tokens_trained: float | None
    peak_bytes: int | None
    weights_changed: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """One method on one model over the tasks of a block.

    Attributes:
        scores: by the number of the column, where it has one.
        differences: those to the untouched model, with verdicts after Holm's correction over all of the block.
        against_full: the same, to the method on the model in full precision.
        wins, losses, ties: tasks it is shown to be better, worse and neither on, retention left out.
        seconds_a_document: of the evaluation, over the tasks that all rows of the model have.
        efforts: by column the seconds of evaluation, and the documents they were for.
        rank: over the tasks of the block; with a single task that on its documents; among the rows that stand together.
        is_best: the numbers of columns where no other row of its model has a better score.
    """

    key: RowKey
    method: str
    first: Record
    scores: Mapping[int, Score]
    differences: Mapping[int, Difference]
    against_full: Mapping[int, Difference]
    cost: Cost
    efforts: Mapping[int, tuple[float, int]]
    seconds_a_document: float | None = None
    wins: int = 0
    losses: int = 0
    ties: int = 0
    rank: MeanRank | None = None
    retention: Retention | None = None
    is_best: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Block:
    """Methods that share tasks.

    Attributes:
        retained: numbers of the columns that tell what a method costs elsewhere, and take no part in ranks.
        ranked: numbers of the columns that mean ranks are over.
        models: by title the standings, the best first.
        notes: sentences on what has no mean rank, and why, and on options that rows do not name though they differ.
        machines: where it was measured.
        is_of_models: there are no methods, so that ``models`` has one entry, without a title, whose rows are the models.
    """

    columns: tuple[Column, ...]
    retained: frozenset[int]
    ranked: tuple[int, ...]
    models: Mapping[str, tuple[Standing, ...]]
    notes: tuple[str, ...]
    machines: tuple[str, ...]
    is_of_models: bool = False


def summarise(board: Board, *, retention: Sequence[str] = RETENTION) -> list[Block]:
    """Return the blocks of a board, those with most tasks first.

    Args:
        retention: names of tasks that tell what a method costs elsewhere.
    """
    if not board.tables:
        return []
    columns = columns_of(board.tables)
    by_row = rows_over(columns)
    found = []
    for group in _that_share_rows(len(columns), by_row):
        places = {number: place for place, number in enumerate(group)}
        rows = {
            key: {places[number]: row for number, row in of_key.items() if number in places}
            for key, of_key in by_row.items()
            if not places.keys().isdisjoint(of_key)
        }
        found.append(_block(board, [columns[number] for number in group], rows, frozenset(retention)))
    return sorted(found, key=lambda block: (-len(block.columns), -sum(map(len, block.models.values()))))


def _that_share_rows(count: int, by_row: Mapping[RowKey, Mapping[int, Row]]) -> list[list[int]]:
    """Return the numbers of columns in groups that share a method on a model, those of untouched models alone by these."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    def join(numbers: Iterable[int]) -> None:
        first, *rest = map(root, numbers)
        for one in rest:
            parent[root(one)] = root(first)

    methods = [numbers for key, numbers in by_row.items() if key.method]
    for numbers in methods:
        join(numbers)
    asked = {number for numbers in methods for number in numbers}
    for key, numbers in by_row.items():
        alone = [number for number in numbers if number not in asked]
        if not key.method and alone:
            join(alone)
    groups: dict[int, list[int]] = {}
    for number in range(count):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())


def _block(
    board: Board, columns: Sequence[Column], by_row: Mapping[RowKey, Mapping[int, Row]], retention: frozenset[str]
) -> Block:
    told = told_rows(by_row)
    standings = [_standing(board, key, rows, columns, told[key]) for key, rows in by_row.items()]
    retained = frozenset(n for n, column in enumerate(columns) if column.table.first.task.name in retention)
    if len(retained) == len(columns):
        retained = frozenset()  # nothing else to be ranked by
    standings = _counted(_corrected(standings, columns), columns, retained)
    ranked = tuple(
        n for n, column in enumerate(columns)
        if n not in retained and column.metric.higher_is_better is not None and not column.table.is_partial
    )  # fmt: skip
    baselines = {one.key: one for one in standings if not one.key.method}
    elsewhere = {n: columns[n] for n in sorted(retained)}
    signed = signed_columns(columns, [one.scores for one in standings], board.records)
    models: dict[str, tuple[Standing, ...]] = {}
    notes: list[str] = []
    models_alone = {one.key.model for one in standings if not one.key.method or one.first.foreign is not None}
    is_of_models = 1 < len(models_alone) == len(standings)
    if is_of_models:  # nothing but models as they are, by us or by other tools: they are what is compared
        standings = [replace(one, method=one.key.model) for one in standings]
    names = {one.key.model: "" if is_of_models else one.key.model for one in standings}
    for model in dict.fromkeys(names.values()):
        rows = [one for one in standings if names[one.key.model] == model]
        rows = [_with_retention(one, baselines, elsewhere, signed) for one in rows]
        rows, said = _ranked(_with_best(_with_seconds(rows), columns), columns, ranked, is_of_models=is_of_models)
        only = columns[ranked[0]] if len(ranked) == 1 else None
        models[model] = tuple(sorted(rows, key=lambda one: _order(one, only, ranked[0] if ranked else 0)))
        notes += [f"{model}: {sentence}" for sentence in said] if len(set(names.values())) > 1 else said
    if not ranked:
        notes.append(_why_nothing_is_ranked(columns, retained))
    notes += _of_prompts(standings)
    notes += untold_options([one.first for one in standings])
    environments = {id(one.first.environment): one.first.environment for one in standings}.values()
    machines = dict.fromkeys(f"{one.device}, {one.platform}, {_threads(one.threads)}" for one in environments)
    return Block(tuple(columns), retained, ranked, models, tuple(dict.fromkeys(notes)), tuple(machines), is_of_models)


def _threads(count: int | None) -> str:
    return "threads unknown" if count is None else counted(count, "thread")


def _of_prompts(standings: Sequence[Standing]) -> list[str]:
    names = dict.fromkeys(one.key.model for one in standings if one.key.prompts)
    said = "the same model, asked with other prompts; the set on most tasks, of as many the one recorded first, has no name"
    return [f"{', '.join(names)}: {said}"] if names else []


def _why_nothing_is_ranked(columns: Sequence[Column], retained: frozenset[int]) -> str:
    partial = sum(column.table.is_partial for n, column in enumerate(columns) if n not in retained)
    return (
        f"No mean rank: {counted(partial, 'task')} asked in part" if partial else "No mean rank: no direction is good"
    )


def _standing(board: Board, key: RowKey, rows: Mapping[int, Row], columns: Sequence[Column], method: str) -> Standing:
    scores = {n: score for n, row in rows.items() if (score := score_of(row, columns[n])) is not None}
    sources = {source for row in rows.values() for source in row.sources}
    return Standing(
        key=key,
        method=method,
        first=next(iter(rows.values())).first,
        scores=scores,
        differences={n: score.difference for n, score in scores.items() if score.difference is not None},
        against_full={n: score.against_full for n, score in scores.items() if score.against_full is not None},
        cost=_cost([board.records[source] for source in sorted(sources)]),
        efforts={n: _effort([board.records[source] for source in score.sources]) for n, score in scores.items()},
    )


def _effort(records: Sequence[Record]) -> tuple[float, int]:
    """Return seconds of evaluation, and the documents they were for."""
    return sum(record.cost.evaluate_seconds for record in records), sum(record.counts.docs for record in records)


def _with_seconds(rows: Sequence[Standing]) -> list[Standing]:
    common = set.intersection(*(set(one.efforts) for one in rows)) if rows else set()
    found = []
    for one in rows:
        seconds, docs = (sum(one.efforts[n][part] for n in common) for part in (0, 1))
        found.append(replace(one, seconds_a_document=seconds / docs if docs else None))
    return found


def _cost(records: Sequence[Record]) -> Cost:
    trained = [record.cost.tokens_trained for record in records if record.cost.tokens_trained]
    peaks = [peak for r in records for peak in (r.cost.apply_peak_bytes, r.cost.evaluate_peak_bytes) if peak]
    model = records[0].model
    return Cost(
        training_seconds=fmean(record.cost.apply_seconds for record in records),
        tokens_trained=fmean(trained) if trained else None,
        peak_bytes=max(peaks, default=None),
        weights_changed=model.weights_changed / model.parameters
        if model.weights_changed is not None and model.parameters
        else None,
    )


def _corrected(standings: Sequence[Standing], columns: Sequence[Column]) -> list[Standing]:
    """Return the standings with verdicts after Holm's correction over all differences of one kind."""
    ways = [column.metric.higher_is_better for column in columns]
    differences = _holm_over_all([one.differences for one in standings], ways)
    against_full = _holm_over_all([one.against_full for one in standings], ways)
    return [
        replace(one, differences=first, against_full=second)
        for one, first, second in zip(standings, differences, against_full, strict=True)
    ]


def _holm_over_all(
    rows: Sequence[Mapping[int, Difference]], ways: Sequence[bool | None]
) -> list[dict[int, Difference]]:
    found = [dict(row) for row in rows]
    places = [(row, n) for row, differences in enumerate(found) for n, one in differences.items() if one.p is not None]
    adjusted = holm([found[row][n].p or 0.0 for row, n in places])
    for (row, n), p in zip(places, adjusted, strict=True):
        found[row][n] = with_verdict(replace(found[row][n], p_holm=p), p, ways[n])
    return found


def _counted(standings: Sequence[Standing], columns: Sequence[Column], retained: frozenset[int]) -> list[Standing]:
    found = []
    for one in standings:
        verdicts = [
            difference.verdict
            for n, difference in one.differences.items()
            if n not in retained and columns[n].metric.higher_is_better is not None
        ]
        counts = [verdicts.count(word) for word in ("better", "worse", "")]
        found.append(replace(one, wins=counts[0], losses=counts[1], ties=counts[2]))
    return found


def _with_retention(
    one: Standing, baselines: Mapping[RowKey, Standing], columns: Mapping[int, Column], signed: frozenset[int]
) -> Standing:
    untouched = baselines.get(replace(one.key, method=""))
    if untouched is None or not one.key.method:
        return one
    return replace(one, retention=retention_of(one.scores, untouched.scores, columns, signed))


def _with_best(rows: Sequence[Standing], columns: Sequence[Column]) -> list[Standing]:
    best: dict[int, set[int]] = {row: set() for row in range(len(rows))}
    for n, column in enumerate(columns):
        sign = {True: 1, False: -1, None: 0}[column.metric.higher_is_better]
        values = {row: sign * score.value for row, one in enumerate(rows) if sign and (score := _sound(one, n))
                  and score.value is not None}  # fmt: skip
        most = max(values.values(), default=0.0)
        for row, value in values.items():
            if len(values) > 1 and value == most:
                best[row].add(n)
    return [replace(one, is_best=frozenset(best[row])) if best[row] else one for row, one in enumerate(rows)]


def _sound(one: Standing, number: int) -> Score | None:
    score = one.scores.get(number)
    return None if score is None or score.value is None or score.unranked else score


def _ranked(
    rows: Sequence[Standing], columns: Sequence[Column], ranked: Sequence[int], *, is_of_models: bool
) -> tuple[list[Standing], list[str]]:
    """Return the rows of one model with mean ranks where they have every task, and sentences for those that have not."""
    if not ranked:
        return list(rows), []
    lacking = {row: [columns[n].task for n in ranked if _sound(one, n) is None] for row, one in enumerate(rows)}
    complete = [row for row, tasks in lacking.items() if not tasks]
    notes = [
        f"No mean rank, {rows[row].method}: no sound score of {', '.join(tasks)}"
        for row, tasks in lacking.items()
        if tasks
    ]
    if len(complete) < 2:
        return list(rows), notes
    found = list(rows)
    if len(ranked) == 1:
        for row in complete:
            if (place := _place(rows[row].scores[ranked[0]], is_of_models=is_of_models)) is not None:
                found[row] = replace(rows[row], rank=MeanRank(float(place[0]), None, None, *place))
        return found, notes
    signs = [1 if columns[n].metric.higher_is_better else -1 for n in ranked]
    values = numpy.array(
        [[sign * (rows[row].scores[n].value or 0.0) for row in complete] for n, sign in zip(ranked, signs, strict=True)]
    )
    for row, rank in zip(complete, mean_ranks(values), strict=True):
        found[row] = replace(rows[row], rank=rank)
    return found, notes


def _place(score: Score, *, is_of_models: bool) -> tuple[int, bool] | None:
    """Return the rank of a score among the rows that it stands with, and whether it is shared."""
    if not is_of_models:
        return score.rank_on_model
    return None if score.rank is None else (score.rank, score.is_tied)


def _order(one: Standing, only: Column | None, number: int) -> tuple[bool, bool, float, float, bool, str]:
    is_contradicted = any(score.is_contradicted for score in one.scores.values())
    rank, score = one.rank.mean if one.rank else 0.0, _sound(one, number)
    value = 0.0
    if only is not None and score is not None and only.metric.higher_is_better is not None:
        value = -(score.value or 0.0) if only.metric.higher_is_better else score.value or 0.0
    return is_contradicted, one.rank is None, rank, value, bool(one.key.method), one.method
