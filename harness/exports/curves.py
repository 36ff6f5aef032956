"""Scores over a number: steps, a rank, a share, checkpoints; a line for each method that otherwise stays the same."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.board.columns import Column, model_of, model_titles, score_of
from harness.board.tables import Row, Score
from harness.errors import HarnessError
from harness.names import printable
from harness.records.labels import told_methods
from harness.records.record import Record

# What is no option of a method, and has a number in its name.
NAMED = ("model", "adapter", "revision")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a panel.

    Attributes:
        name: the method with the options that tell it from other lines, and the model where there are several.
        places: the numbers, ascending; so are ``values``, ``lows`` and ``highs`` (95 % intervals, None where there is none).
        is_level: the untouched model, which has no such number.
    """

    name: str
    places: tuple[float, ...]
    values: tuple[float, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    is_level: bool = False


def curves_of(columns: Sequence[Column], over: str) -> dict[str, list[Curve]]:
    """Return for each column, by its title, its lines.

    Args:
        over: an option that is a number, or one of ``NAMED``, of which the last number in its name counts.

    Raises:
        HarnessError: none of the rows has such a number, or no line has two.
    """
    if not over:
        raise HarnessError(
            "a curve is over a number; name an option of the method, or model, adapter or revision, with --over"
        )
    rows = [row for column in columns for row in column.table.rows if score_of(row, column) is not None]
    numbers = {id(row): _number(row.first, over) for row in rows}
    if not any(number is not None for number in numbers.values()):
        options = sorted({name for row in rows for name in row.first.method.options})
        raise HarnessError(
            f"no row has a number '{printable(over)}'; options are {printable(', '.join(options)) or 'none'}"
        )
    names = _names(rows, over)
    found = {column.title: _lines(column, numbers, names, over) for column in columns}
    found = {title: lines for title, lines in found.items() if any(len(one.places) > 1 for one in lines)}
    if not found:
        raise HarnessError(f"no method has two numbers '{printable(over)}' with the rest alike")
    return found


def _number(record: Record, over: str) -> float | None:
    if over in NAMED:
        words = {
            "model": record.model.name, "adapter": record.settings.model_args.get("peft"), "revision": record.model.revision
        }[over]  # fmt: skip
        every = _NUMBER.findall(str(words)) if words else []
        return float(every[-1]) if every else None
    value = record.method.options.get(over)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _without(record: Record, over: str) -> Record:
    """Return a record without the number that lines are over, so that the rest tells which line it is on."""
    options = {name: value for name, value in record.method.options.items() if name != over}
    method = record.method.model_copy(update={"options": options, "inputs": None})
    return record.model_copy(update={"method": method})


def _names(rows: Sequence[Row], over: str) -> dict[int, str]:
    told = told_methods([_without(row.first, over) for row in rows])
    titles = {} if over in NAMED else model_titles(rows)
    has_models = len(set(titles.values())) > 1
    return {
        id(row): f"{name}, {titles[model_of(row)]}" if has_models else name
        for row, name in zip(rows, told, strict=True)
    }


def _lines(column: Column, numbers: Mapping[int, float | None], names: Mapping[int, str], over: str) -> list[Curve]:
    points: dict[str, dict[float, Score]] = {}
    levels: dict[str, Score] = {}
    for row in column.table.rows:
        score = score_of(row, column)
        if score is None or score.value is None or score.unranked:
            continue
        number = numbers[id(row)]
        if number is not None:
            points.setdefault(names[id(row)], {})[number] = score
        elif row.is_baseline:
            levels[names[id(row)]] = score
    lines = [_curve(name, sorted(of.items()), is_level=False) for name, of in points.items()]
    return [*(_curve(name, [(0.0, score)], is_level=True) for name, score in levels.items()), *lines]


def _curve(name: str, points: Sequence[tuple[float, Score]], *, is_level: bool) -> Curve:
    intervals = [score.interval for _, score in points]
    return Curve(
        name,
        tuple(place for place, _ in points),
        tuple(score.value or 0.0 for _, score in points),
        tuple(None if one is None else one.low for one in intervals),
        tuple(None if one is None else one.high for one in intervals),
        is_level,
    )
