"""Records to tables: what stands side by side, what is ranked, and what was left out and why.

Markdown and HTML are two prints of the ``Board`` made here.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.board import ranking, row_intervals, table_notes
from harness.board.omissions import Omissions
from harness.board.scores_by_document import SampleFiles
from harness.board.seed_files import SeedFiles
from harness.board.tables import Board, Metric, Row, Score, Table
from harness.names import printable
from harness.records.grouping import Keys, method_text, newest_of_each, table_content, told_apart, weights_label
from harness.records.labels import options_that_differ
from harness.records.ledger import Origin, Reading
from harness.records.record import UNKNOWN, Record
from harness.records.soundness import kind, unranked_reason
from harness.verifying.contradictions import Contradictions


def build_reading(reading: Reading, *, with_samples: bool = True) -> Board:
    """Return the tables of what a file or folder held."""
    built = build(reading.records, origins=reading.origins, problems=reading.problems, with_samples=with_samples)
    reasons = Counter(one.reason for one in reading.withdrawn)
    return replace(built, omissions=replace(built.omissions, withdrawn=tuple(sorted(reasons.items()))))


def build(
    records: Sequence[Record],
    *,
    origins: Sequence[Origin] = (),
    problems: Sequence[str] = (),
    with_samples: bool = True,
) -> Board:
    """Return the tables of ``records``.

    Args:
        records: in the order of the ledger: of two with the same key the later one counts.
        origins: where each record was read, to find the samples beside it; without, differences are unpaired.
        problems: sentences for lines that were no records.
        with_samples: read the sample files, for paired differences, sample answers, and scores that contradict them.
    """
    keys = Keys()
    kept, repeated, otherwise = newest_of_each(records, keys)
    groups: dict[str, list[int]] = {}
    for index in kept:
        groups.setdefault(keys.table(records[index]), []).append(index)
    files = SampleFiles(records, origins if with_samples else ())
    contradictions = Contradictions(records, origins, files.contradiction)
    of_seeds = SeedFiles(records[index] for index in kept)
    tables = []
    for indexes in groups.values():
        joined = of_seeds.joined(records, _by_row(records, indexes, keys), keys)
        tables.append(_table(records, indexes, joined, keys, files, contradictions))
    tables = _with_twins_noted(_in_groups(sorted(tables, key=_table_order)))
    omissions = replace(
        _without_rank(tables),
        problems=tuple(problems),
        repeated=repeated,
        repeated_with_other_value=otherwise,
        sample_problems=tuple(files.problems),
    )
    return Board(tuple(tables), records, files, omissions, len(records))


def part(board: Board, tables: Sequence[Table]) -> Board:
    """Return the board of some of its tables as they are; what no table shows is told by the whole one alone."""
    sources = {
        source for table in tables for row in table.rows for score in row.scores.values() for source in score.sources
    }
    return replace(board, tables=tuple(tables), omissions=_without_rank(tables), count=len(sources))


def _without_rank(tables: Sequence[Table]) -> Omissions:
    unranked = Counter(
        kind(score.unranked)
        for table in tables
        for row in table.rows
        for score in row.scores.values()
        if score.unranked and not score.is_contradicted
    )
    contradicted = [
        f"{table.first.task.name}, {metric.title}, {row.label}, {row.first.model.name}: {score.unranked}"
        for table in tables
        for row in table.rows
        for metric in table.metrics
        if (score := row.scores.get((metric.name, metric.filter))) is not None and score.is_contradicted
    ]
    partial = sum(len(table.rows) for table in tables if table.is_partial)
    return Omissions(
        contradicted=tuple(map(printable, contradicted)), unranked=tuple(sorted(unranked.items())), partial=partial
    )


def _table(
    records: Sequence[Record],
    indexes: Sequence[int],
    joined: Sequence[tuple[Record, Sequence[int]]],
    keys: Keys,
    files: SampleFiles,
    contradictions: Contradictions,
) -> Table:
    chosen = [records[index] for index in indexes]
    by_metric = _by_metric(chosen)
    metrics = tuple(Metric(*key, table_notes.one_direction(alike)) for key, alike in by_metric.items())
    variants = told_apart({keys.board(record): record for record in chosen})
    rows = [_row(records, group, variants, keys, contradictions, first) for first, group in joined]
    is_partial = any(record.is_partial for record in chosen)
    for metric in metrics:
        rows = _judged(records, rows, metric, files, is_partial=is_partial)
    files.forget_scores()
    methods = [row.first for row in rows if not row.first.is_baseline]
    return Table(
        first=chosen[0],
        metrics=metrics,
        rows=tuple(sorted(rows, key=_row_order)),
        options=tuple(options_that_differ(methods)),
        has_models=len({row.first.model.name for row in rows}) > 1,
        has_quantizations=len({row.first.model.quantization for row in rows}) > 1,
        has_codes=len({row.code for row in rows if not row.first.is_baseline}) > 1,
        is_partial=is_partial,
        notes=_notes(rows, chosen, list(by_metric.values())),
    )


def _by_row(records: Sequence[Record], indexes: Sequence[int], keys: Keys) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for index in indexes:
        groups.setdefault(keys.row(records[index]), []).append(index)
    return list(groups.values())


def _notes(rows: Sequence[Row], records: Sequence[Record], by_metric: Sequence[Sequence[Record]]) -> tuple[str, ...]:
    count = sum(score.is_contradicted for row in rows for score in row.scores.values())
    return (*table_notes.contradictions(count), *table_notes.metrics(by_metric), *table_notes.versions(records))


def _by_metric(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return the records of each column, in the order the records have them."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        found.setdefault((record.metric.name, record.metric.filter), []).append(record)
    return found


def _row(
    records: Sequence[Record],
    indexes: Sequence[int],
    variants: Mapping[str, str],
    keys: Keys,
    contradictions: Contradictions,
    first: Record,
) -> Row:
    by_metric: dict[tuple[str, str], list[int]] = {}
    runs: dict[int, int] = {}
    for index in sorted(indexes, key=lambda index: _seed_order(records[index])):
        metric = records[index].metric
        by_metric.setdefault((metric.name, metric.filter), []).append(index)
        runs.setdefault(keys.run(records[index]), index)
    chosen = [records[index] for index in runs.values()]
    peaks = [peak for r in chosen for peak in (r.cost.apply_peak_bytes, r.cost.evaluate_peak_bytes) if peak]
    board = keys.board(chosen[0])
    return Row(
        first=first,
        board=board,
        variant=variants[board],
        scores={metric: _score(records, sources, contradictions, len(runs)) for metric, sources in by_metric.items()},
        sources=tuple(runs.values()),
        seconds_a_document=_seconds_a_document(chosen),
        seconds=mean([record.cost.apply_seconds + record.cost.evaluate_seconds for record in chosen]),
        peak_bytes=max(peaks, default=None),
    )


def _seconds_a_document(records: Sequence[Record]) -> float | None:
    docs = sum(record.counts.docs for record in records)
    return sum(record.cost.evaluate_seconds for record in records) / docs if docs else None


def _score(records: Sequence[Record], sources: Sequence[int], contradictions: Contradictions, seeds: int) -> Score:
    chosen = [records[index] for index in sources]
    values = [record.value for record in chosen if record.value is not None]
    errors = [record.stderr for record in chosen if record.value is not None and record.stderr is not None]
    contradicted = [said for said in map(contradictions.of, sources) if said]
    reasons = contradicted or [reason for reason in map(unranked_reason, chosen) if reason]
    unranked = reasons[0] if reasons else ""
    if not reasons and len(chosen) < seeds:
        unranked = f"no record of it ({seeds - len(chosen)} of {seeds} seeds)"
    elif reasons and len(chosen) > 1:
        unranked += f" ({len(reasons)} of {len(chosen)} seeds)"
    return Score(
        value=mean(values) if values else None,
        stderr=mean(errors) if errors else None,
        deviation=_deviation(values),
        by_seed=tuple((seed_label(record), record.value) for record in chosen),
        sources=tuple(sources),
        unranked=unranked,
        is_contradicted=bool(contradicted),
        notes=tuple(dict.fromkeys(note for record in chosen for note in record.notes)),
    )


def mean(values: Sequence[float]) -> float:
    """Return the mean, of a single value that value itself."""
    if len(values) == 1:
        return values[0]
    try:
        return statistics.fmean(values)
    except OverflowError:
        return sum(value / len(values) for value in values)


def seed_label(record: Record) -> str:
    """Return the seed, or all four where they differ."""
    seeds = (record.seeds.random, record.seeds.numpy, record.seeds.torch, record.seeds.fewshot)
    if set(seeds) == {None}:
        return UNKNOWN
    return str(seeds[0]) if len(set(seeds)) == 1 else ",".join(map(str, seeds))


def _deviation(values: Sequence[float]) -> float | None:
    try:
        return statistics.stdev(values) if len(values) > 1 else None
    except OverflowError:
        return None


def _judged(
    records: Sequence[Record], rows: list[Row], metric: Metric, files: SampleFiles, *, is_partial: bool
) -> list[Row]:
    """Return the rows with intervals, differences to their baselines and ranks for one metric.

    Part of a task gets differences, on the documents both were asked, but no rank: that is for the whole task.
    """
    key = (metric.name, metric.filter)
    sound = [n for n, row in enumerate(rows) if key in row.scores and not row.scores[key].unranked]
    entries = [_entry(records, rows[n].scores[key], files) for n in sound]
    found = row_intervals.of_rows([entry.known for entry in entries], [entry.by_document for entry in entries])
    baselines = {rows[n].board: position for position, n in enumerate(sound) if rows[n].first.is_baseline}
    pairs = {
        position: baselines[rows[n].board]
        for position, n in enumerate(sound)
        if not rows[n].first.is_baseline and rows[n].board in baselines
    }
    differences = ranking.differences(entries, pairs, higher_is_better=metric.higher_is_better)
    quantised = ranking.differences(
        entries, _full_precision([rows[n] for n in sound]), higher_is_better=metric.higher_is_better
    )
    boards = [rows[n].board for n in sound]
    ranks = {} if is_partial else ranking.ranks(entries, higher_is_better=metric.higher_is_better)
    own_ranks = {} if is_partial else _ranks_within(entries, boards, ranks, metric.higher_is_better)
    judged = list(rows)
    for position, n in enumerate(sound):
        rank, is_tied = ranks.get(position, (None, False))
        score = replace(
            rows[n].scores[key],
            interval=found[position],
            difference=differences.get(position),
            against_full=quantised.get(position),
            rank=rank,
            is_tied=is_tied,
            rank_on_model=own_ranks.get(position),
        )
        judged[n].scores[key] = score
    return judged


def _ranks_within(
    entries: Sequence[ranking.Entry],
    boards: Sequence[str],
    ranks: dict[int, tuple[int, bool]],
    higher_is_better: bool | None,
) -> dict[int, tuple[int, bool]]:
    """Return the ranks of entries among those of their own model alone; ``ranks`` are those among all."""
    groups: dict[str, list[int]] = {}
    for position, name in enumerate(boards):
        groups.setdefault(name, []).append(position)
    if len(groups) < 2:
        return ranks
    found: dict[int, tuple[int, bool]] = {}
    for positions in groups.values():
        own = ranking.ranks([entries[position] for position in positions], higher_is_better=higher_is_better)
        found |= {positions[place]: rank for place, rank in own.items()}
    return found


def _full_precision(rows: Sequence[Row]) -> dict[int, int]:
    """Return for each row of a quantised model the one with the same method on the same files in full precision."""
    full: dict[tuple[str, str], list[int]] = {}
    for position, row in enumerate(rows):
        if row.first.model.quantization == "none":
            full.setdefault((row.first.model.digest, method_text(row.first)), []).append(position)
    found = {}
    for position, row in enumerate(rows):
        if row.first.model.quantization != "none":
            several = full.get((row.first.model.digest, method_text(row.first)), [])
            if len(several) == 1:
                found[position] = several[0]
    return found


def _entry(records: Sequence[Record], score: Score, files: SampleFiles) -> ranking.Entry:
    assert score.value is not None
    documents = files.by_document(score.sources)
    known = row_intervals.estimate([records[source] for source in score.sources], documents)
    return ranking.Entry(score.value, score.stderr, documents, known)


def _in_groups(tables: Sequence[Table]) -> list[Table]:
    """Return the tables with those of a group's tasks right after the group's own, groups within groups, too."""
    groups = {name: number for number, table in enumerate(tables) for name in table.first.task.members or ()}

    def place(number: int, known: tuple[int, ...] = ()) -> tuple[int, ...]:
        group = groups.get(tables[number].first.task.name)
        return (number, *known) if group is None or group in (number, *known) else place(group, (number, *known))

    return [tables[number] for number in sorted(range(len(tables)), key=place)]


def _with_twins_noted(tables: Sequence[Table]) -> list[Table]:
    """Add to tables that share a task's name in what they differ."""
    named: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        named.setdefault(table.first.task.name, []).append(table_content(table.first))
    noted = []
    for table in tables:
        contents = named[table.first.task.name]
        notes = table.notes
        if len(contents) > 1:
            names = [n for n in contents[0] if len({json.dumps(c.get(n), default=str) for c in contents}) > 1]
            notes = (f"{len(contents)} tables have this task's name; they differ in {', '.join(names)}", *notes)
        noted.append(replace(table, notes=notes))
    return noted


def _seed_order(record: Record) -> tuple[Any, ...]:
    seeds = (record.seeds.random, record.seeds.numpy, record.seeds.torch, record.seeds.fewshot)
    return tuple((seed is not None, seed or 0) for seed in seeds)


def _row_order(row: Row) -> tuple[Any, ...]:
    record = row.first
    model = (record.model.name, weights_label(record), row.variant, row.board)
    return (*model, row.is_contradicted, not record.is_baseline, row.label, method_text(record))


def _table_order(table: Table) -> tuple[Any, ...]:
    record = table.first
    return (not record.task.group, record.task.name, table.is_partial, json.dumps(table_content(record), default=str))
