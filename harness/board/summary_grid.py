"""A board's summary as cells of text, which Markdown and the page print alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.board.columns import Column
from harness.board.details import duration, number, size
from harness.board.mean_ranks import MOST_METHODS
from harness.board.ranking import MARKS, SAME, Difference
from harness.board.settings import Settings
from harness.board.summary import Block, Standing, summarise
from harness.board.tables import Board, Score, Table
from harness.names import counted, printable
from harness.records.intervals import NORMAL
from harness.records.labels import NOTED, places_of
from harness.records.record import UNKNOWN

DASH = "–"
# Tasks that a title names; more are counted.
MOST_NAMED = 3
# Sentences on scores of a grid; more are counted.
MOST_SAID = 12
# What a head of a column means; those that are in no grid are left out of the legend.
MEANINGS = {
    "seeds": "how many a row is the mean of, at most",
    "mean rank": "mean of the ranks over the tasks, 1 the best, [ ] its 95 % interval over tasks: how far another draw of tasks "
    "might move it",
    "place": "1 + how many of the rows beside it are shown to be better over tasks, with a single task over its documents "
    "(two-sided, 5 % over all pairs); = where rows share it, because nothing tells them apart",
    "won, lost, tied": "tasks where a row is shown to be better (▲) or worse (▼) than the untouched model, or neither (5 %, "
    "Holm's correction over all rows and tasks of this summary, so that it shows less than a task's own table); tasks for "
    "retention do not count",
    "retained": "what is left of the untouched model's score on tasks that take no part in ranks; turned over where lower is "
    "better, so that less than 100 % is a cost; where a metric may be negative, such as a correlation, the score less the "
    "untouched model's instead, below 0 a cost",
    "training": "of the method, one seed; tokens trained on",
    "s/doc": "seconds of evaluation for a document",
    "memory": "largest peak of training and evaluation",
    "changed": "share of the model's parameters",
}
SCORES = (
    "Beside a score its difference to the untouched model, each with the digits its error allows; bold: the best number of a "
    "model, which need not be shown to be better."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell: a text, a second one, and what kind it is (``better``, ``worse``, ``unranked`` or nothing)."""

    text: str
    second: str = ""
    kind: str = ""
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column, and the table that it is from, where it is a task."""

    text: str
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """One table of a summary: methods on one model; ``cells`` has a row for each, its first cells those of ``heads``."""

    title: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    is_baseline: tuple[bool, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """The grids of a board, and what their heads mean."""

    grids: tuple[Grid, ...]
    legend: tuple[str, ...]


def summary(board: Board, settings: Settings) -> Summary:
    """Return a board's summary, ready to be printed."""
    grids: list[Grid] = []
    for block in summarise(board, retention=settings.retention):
        made = [_grid(block, model, rows) for model, rows in block.models.items()]
        pairs = _pairs(block)
        made += [pairs] if pairs else []
        # What is said of a block stands below its last grid.
        grids += [*made[:-1], replace(made[-1], notes=(*made[-1].notes, *_below(block)))]
    heads = {head.text for grid in grids for head in grid.heads}
    legend = [f"{name}: {meaning}." for name, meaning in MEANINGS.items() if name in heads]
    return Summary(tuple(grids), tuple([SCORES, *legend] if grids else []))


def _below(block: Block) -> list[str]:
    notes = [*block.notes]
    if len(block.ranked) > 1 and any(one.rank for rows in block.models.values() for one in rows):
        notes.append(f"Ranks are over {counted(len(block.ranked), 'task')}")
    if any(one.rank and one.rank.place is None for rows in block.models.values() for one in rows):
        notes.append(f"Places are not told of more than {MOST_METHODS} rows")
    machines = [printable(one) for one in block.machines if UNKNOWN not in one]
    several = ": seconds do not compare" if len(block.machines) > 1 else ""
    notes += [f"Measured on {'; '.join(machines)}{several}"] if machines else []
    return [f"{printable(note)}." for note in notes]


def _grid(block: Block, model: str, rows: Sequence[Standing]) -> Grid:
    own = [n for n in range(len(block.columns)) if n not in block.retained]
    optional = {
        "place": [_place(one) for one in rows] if any(one.rank for one in rows) else None,
        "mean rank": [_mean_rank(one) for one in rows]
        if len(block.ranked) > 1 and any(one.rank for one in rows)
        else None,
        "won, lost, tied": [_counts(one) for one in rows] if any(one.differences for one in rows) else None,
        "retained": [_retention(one) for one in rows] if any(one.retention for one in rows) else None,
    }
    parts: list[tuple[Head, list[Cell]]] = [
        (Head("model" if block.is_of_models else "method"), [Cell(printable(one.method)) for one in rows])
    ]
    seeds = [max(len(score.by_seed) for score in one.scores.values()) for one in rows]
    parts += [(Head("seeds"), [Cell(str(count)) for count in seeds])] if max(seeds) > 1 else []
    parts += [(Head(name), cells) for name in ("place", "mean rank") if (cells := optional[name])]
    parts += [_scores(block, n, rows) for n in own]
    parts += [(Head("won, lost, tied"), cells)] if (cells := optional["won, lost, tied"]) else []
    parts += [_scores(block, n, rows) for n in sorted(block.retained)]
    parts += [(Head("retained"), cells)] if (cells := optional["retained"]) else []
    parts += _costs(rows)
    made = tuple(zip(*(cells for _, cells in parts), strict=True))
    is_baseline = tuple(not one.key.method and not block.is_of_models for one in rows)
    return Grid(_title(block, model), tuple(head for head, _ in parts), made, is_baseline, tuple(_said(block, rows)))


def _said(block: Block, rows: Sequence[Standing]) -> list[str]:
    """Return why scores of a grid take no rank, and where they are not what they seem, a sentence each."""
    found: dict[str, list[str]] = {}
    for one in rows:
        for n, score in one.scores.items():
            notes = [f"{NOTED} {one.method}: {note}" for note in score.notes]
            for sentence in [*([f"Not ranked, {one.method}: {score.unranked}"] if score.unranked else []), *notes]:
                found.setdefault(sentence, []).append(block.columns[n].task)
    said = [printable(f"{sentence} ({', '.join(dict.fromkeys(tasks))})") for sentence, tasks in found.items()]
    more = len(said) - MOST_SAID
    return [*said[:MOST_SAID], *([f"And {more} more like these: `--task all`"] if more > 0 else [])]


def _title(block: Block, model: str) -> str:
    tasks = [column.task for column in block.columns]
    said = ", ".join(tasks) if len(tasks) <= MOST_NAMED else counted(len(tasks), "task")
    return f"{model} · {said}" if model else said


def _scores(block: Block, n: int, rows: Sequence[Standing]) -> tuple[Head, list[Cell]]:
    column = block.columns[n]
    return _head(column), [_score(one.scores.get(n), one.differences.get(n), n in one.is_best) for one in rows]


def _head(column: Column) -> Head:
    return Head(column.title, column.table)


def _score(score: Score | None, difference: Difference | None, is_best: bool) -> Cell:
    if score is None:
        return Cell("")
    if score.value is None:
        return Cell("none", kind="unranked")
    text = f"{score.value:.{_places(score)}f}" + (f" {NOTED}" if score.notes else "")
    if score.is_contradicted:
        return Cell(text, "✗ contradicted", "unranked")
    second = "" if difference is None else difference_text(difference)
    kind = "unranked" if score.unranked else difference.verdict if difference else ""
    return Cell(text, second, kind, is_best)


def _places(score: Score) -> int:
    interval = score.interval
    if interval is not None and interval.method != NORMAL:
        return places_of((interval.high - interval.low) / 4)
    return places_of(score.stderr)


def difference_text(difference: Difference) -> str:
    """Return a difference with the digits that its error allows, and its mark; words where no document's score differs."""
    if difference.is_identical:
        return SAME
    low, high = difference.low, difference.high
    places = places_of(None if low is None or high is None else (high - low) / 4)
    return f"{difference.value:+.{places}f}" + (f" {MARKS[difference.verdict]}" if difference.verdict else "")


def _place(one: Standing) -> Cell:
    if any(score.is_contradicted for score in one.scores.values()):
        return Cell("✗", kind="unranked")
    return Cell(
        DASH
        if one.rank is None or one.rank.place is None
        else f"={one.rank.place}"
        if one.rank.is_tied
        else str(one.rank.place)
    )


def _mean_rank(one: Standing) -> Cell:
    if one.rank is None:
        return Cell(DASH)
    low, high = one.rank.low, one.rank.high
    return Cell(f"{one.rank.mean:.1f}", "" if low is None or high is None else f"[{low:.1f}, {high:.1f}]")


def _counts(one: Standing) -> Cell:
    return Cell(f"{one.wins}, {one.losses}, {one.ties}" if one.key.method and one.differences else DASH)


def _retention(one: Standing) -> Cell:
    """Return the mean share with the smallest one, and what is told as a difference, task by task."""
    found = one.retention
    if found is None:
        return Cell(DASH)
    changes = list(found.changes.items())[:MOST_NAMED]
    said = [f"{change:+.{places_of(abs(change))}f}, {printable(task)}" for task, change in changes]
    said += [f"{len(found.changes) - MOST_NAMED} more"] if len(found.changes) > MOST_NAMED else []
    if found.share is None or found.worst is None:
        return Cell("; ".join(said))
    if f"{found.worst:.1%}" != f"{found.share:.1%}":
        said.insert(0, f"least {found.worst:.1%}, {printable(found.task)}")
    return Cell(f"{found.share:.1%}", "; ".join(said))


def _costs(rows: Sequence[Standing]) -> list[tuple[Head, list[Cell]]]:
    """Return the columns of what it took, without those that no row has a number in."""
    found, costs = [], [one.cost for one in rows]
    if any(cost.training_seconds or cost.tokens_trained for cost in costs):
        training = [
            Cell(duration(cost.training_seconds) if cost.training_seconds else DASH,
                 f"{number(round(cost.tokens_trained))} tokens" if cost.tokens_trained else "")
            for cost in costs
        ]  # fmt: skip
        found.append((Head("training"), training))
    if any(one.seconds_a_document for one in rows):
        seconds = [Cell(f"{one.seconds_a_document:.2g}" if one.seconds_a_document else DASH) for one in rows]
        found.append((Head("s/doc"), seconds))
    if any(cost.peak_bytes for cost in costs):
        found.append((Head("memory"), [Cell(size(cost.peak_bytes)) for cost in costs]))
    if any(cost.weights_changed for cost in costs):
        shares = [DASH if cost.weights_changed is None else f"{cost.weights_changed:.1%}" for cost in costs]
        found.append((Head("changed"), [Cell(share) for share in shares]))
    return found


def _pairs(block: Block) -> Grid | None:
    """Return what quantising the model does to each method: the score on it less that in full precision."""
    rows = [one for standings in block.models.values() for one in standings if one.against_full]
    if not rows:
        return None
    numbers = sorted({n for one in rows for n in one.against_full})
    named: Mapping[int, Head] = {n: _head(block.columns[n]) for n in numbers}
    models = {(one.first.model.name, one.key.digest) for one in rows}
    has_models = len(models) > 1
    heads = (Head("method"), Head("model" if has_models else "weights"), *named.values())
    cells = []
    for one in rows:
        found = [one.against_full.get(n) for n in numbers]
        differences = [Cell("") if d is None else Cell(difference_text(d), kind=d.verdict) for d in found]
        told = one.key.model if has_models else one.first.model.quantization
        cells.append((Cell(printable(one.method)), Cell(printable(told)), *differences))
    of = counted(len(models), "model") if has_models else printable(rows[0].first.model.name)
    title = f"{of}: quantised less full precision"
    return Grid(title, heads, tuple(cells), tuple(not one.key.method for one in rows))
