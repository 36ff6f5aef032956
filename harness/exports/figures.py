"""Figures for a paper: differences to the untouched model, and quality against cost; drawn by matplotlib (extra ``plots``).

No text is read as mathematics, fonts are embedded as outlines a journal takes, and the same records give the same bytes.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.board.columns import Column, RowKey, columns_of, rows_over, score_of, told_rows
from harness.board.plots import pareto
from harness.board.ranking import SAME, Difference
from harness.board.tables import Board, Row, Score
from harness.errors import HarnessError
from harness.exports.curves import Curve, curves_of
from harness.names import counted
from harness.progress import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS, MOST_ROWS = 16, 60
PANELS_A_ROW = 3
INCHES, ROW_INCHES, COST_INCHES = 3.2, 0.24, 2.6
# Of a name beside an axis, and of one in the key below.
LABEL_CHARACTERS, KEY_CHARACTERS = 60, 170
# Where the name of a point may stand, in points of type from it, the nearest first; and how far two things lie apart then.
SHIFTS = sorted(
    ((x, y) for x in (-24, -16, -8, 0, 8, 16, 24) for y in (-27, -18, -9, 0, 9, 18, 27) if (x, y) != (0, 0)),
    key=lambda shift: (math.hypot(*shift), -shift[0], -shift[1]),
)
NAME_POINTS = (10, 7)
# Okabe and Ito's colours, told apart by colour-blind eyes; the form of a mark says the same.
COLOURS = {"better": "#0072B2", "worse": "#D55E00", "": "#555555"}
MARKERS = {"better": "^", "worse": "v", "": "o"}
# Of lines: a colour and a form each.
LINES = [
    (colour, marker)
    for marker in "osD"
    for colour in ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
]
STYLE: dict[str, Any] = {
    "font.size": 8, "axes.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False,
    "pdf.fonttype": 42, "svg.hashsalt": "harness", "svg.fonttype": "path", "axes.grid": True, "grid.alpha": 0.3,
}  # fmt: skip
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Panel:
    """One task: its title, and what stands in it by the number of the row."""

    title: str
    scores: Mapping[int, tuple[Row, Score]]
    higher_is_better: bool | None


def draw(board: Board, shape: str, kind: str, *, metrics: Sequence[str] = (), over: str = "") -> bytes:
    """Return a figure of a board as a file.

    Args:
        board: its tables become panels.
        shape: ``differences`` to the untouched model with 95 % intervals, ``cost``: the score against seconds, or ``curve``: the
            score over ``over``.
        kind: ``svg``, ``pdf`` or ``png``.
        metrics: panels of each task, by name; without, the first that each task names.
        over: of a curve: an option of the methods that is a number, or ``model``, ``adapter`` or ``revision``, of whose name the
            last number counts, as in ``checkpoint-200``.

    Raises:
        HarnessError: matplotlib is not installed, no row has such a number, there is nothing to draw, or more than a page holds.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise HarnessError("figures are drawn by matplotlib: pip install 'token-harness[plots]'") from error
    columns = columns_of(board.tables, metrics)
    if shape == "curve":
        curves = curves_of(columns, over)
        return _saved(mpl, kind, lambda: _curve_figure(curves, over))
    by_row = {key: rows for key, rows in rows_over(columns).items() if shape == "cost" or key.method}
    labels = _labels(by_row, LABEL_CHARACTERS if shape == "differences" else KEY_CHARACTERS)
    panels = [_panel(column, number, by_row) for number, column in enumerate(columns)]
    panels = [panel for panel in panels if _has_any(panel, shape)]
    _check(panels, labels, shape)
    drawn = _differences if shape == "differences" else _costs
    return _saved(mpl, kind, lambda: drawn(panels, labels))


def _saved(mpl: Any, kind: str, drawn: Callable[[], Figure]) -> bytes:
    """Return the figure as a file, and say which characters its font lacks."""
    with mpl.rc_context(STYLE), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        file = io.BytesIO()
        drawn().savefig(file, format=kind, dpi=300, bbox_inches="tight", metadata=METADATA[kind])
    lacking = {str(one.message) for one in told if str(one.message).startswith("Glyph ")}
    if lacking:
        count = counted(len(lacking), "character")
        say(f"note: {count} of the names are boxes in the figure: its font, DejaVu Sans, lacks them")
    return file.getvalue()


def _labels(by_row: Mapping[RowKey, Mapping[int, Row]], most: int) -> list[str]:
    has_models = len({key.model for key in by_row}) > 1
    told = told_rows(by_row)
    named = [f"{told[key]}, {key.model}" if has_models else told[key] for key in by_row]
    return [name if len(name) <= most else f"{name[: most - 1]}…" for name in named]


def _panel(column: Column, number: int, by_row: Mapping[RowKey, Mapping[int, Row]]) -> Panel:
    found = {}
    for place, rows in enumerate(by_row.values()):
        row = rows.get(number)
        score = score_of(row, column)
        if row is not None and score is not None and score.value is not None and not score.unranked:
            found[place] = (row, score)
    return Panel(column.title, found, column.metric.higher_is_better)


def _has_any(panel: Panel, shape: str) -> bool:
    if shape == "differences":
        return any(score.difference is not None for _, score in panel.scores.values())
    return panel.higher_is_better is not None and sum(row.seconds > 0 for row, _ in panel.scores.values()) > 1


def _check(panels: Sequence[Panel], labels: Sequence[str], shape: str) -> None:
    if not panels:
        needed = {"differences": "a method beside its untouched model", "cost": "two rows of one task"}[shape]
        raise HarnessError(f"there is nothing to draw: --shape {shape} needs {needed}")
    if len(panels) > MOST_PANELS or len(labels) > MOST_ROWS:
        found = f"{counted(len(panels), 'panel')} of {counted(len(labels), 'row')}"
        raise HarnessError(f"{found} fit on no page; choose by --task, --method, --model or --metric")


def _grid(panels: Sequence[Panel], height: float, *, is_shared: bool) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    across = min(PANELS_A_ROW, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(INCHES * across, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=is_shared).ravel().tolist()
    for one in axes[len(panels) :]:
        one.set_visible(False)
    return figure, axes[: len(panels)]


def _differences(panels: Sequence[Panel], labels: Sequence[str]) -> Figure:
    """Return each method's difference with its interval, in words where it is none; a panel a task, with the board's marks."""
    figure, axes = _grid(panels, ROW_INCHES * len(labels) + 0.8, is_shared=True)
    for one, panel in zip(axes, panels, strict=True):
        one.axvline(0, color="black", linewidth=0.8)
        for place, (_, score) in panel.scores.items():
            if score.difference is not None:
                _difference(one, place, score.difference)
        _same(one, [n for n, (_, score) in panel.scores.items() if score.difference and score.difference.is_identical])
        one.set_title(panel.title)
        one.set_yticks(range(len(labels)), labels)
        one.set_ylim(len(labels) - 0.4, -0.6)
    figure.supxlabel("difference to the untouched model, 95 % interval", fontsize=8)
    return figure


def _difference(axes: Axes, place: int, difference: Difference) -> None:
    colour = COLOURS[difference.verdict]
    if difference.low is not None and difference.high is not None:
        axes.plot([difference.low, difference.high], [place, place], color=colour, linewidth=1.2)
    axes.plot([difference.value], [place], MARKERS[difference.verdict], color=colour, markersize=4.5)


def _same(axes: Axes, places: Sequence[int]) -> None:
    """Say at the rows in ``places`` that no document's score differs, on the side of the zero where there is more room."""
    low, high = axes.get_xlim()
    is_right = high >= -low
    for place in places:
        shift, align = ((5, 1), "left") if is_right else ((-5, 1), "right")  # above the interval
        axes.annotate(
            SAME,
            (0, place),
            xytext=shift,
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=6,
            color="#555555",
        )


def _costs(panels: Sequence[Panel], labels: Sequence[str]) -> Figure:
    """Return scores against seconds, the front of those that nothing beats at less; numbers are named below the panels."""
    drawn = sorted({place for panel in panels for place in panel.scores})
    names = {place: str(number) for number, place in enumerate(drawn, start=1)}
    from matplotlib.ticker import NullFormatter

    figure, axes = _grid(panels, COST_INCHES, is_shared=False)
    for one, panel in zip(axes, panels, strict=True):
        points = {place: (row, score) for place, (row, score) in panel.scores.items() if row.seconds > 0}
        pairs = [(row.seconds, score.value or 0.0) for row, score in points.values()]
        front = pareto(pairs, bool(panel.higher_is_better))
        one.plot(*zip(*(pairs[n] for n in front), strict=True), drawstyle="steps-post", color="#0072B2", linewidth=1)
        for number, (row, score) in enumerate(points.values()):
            _point(one, row, score, is_front=number in front)
        one.set_xscale("log")
        one.xaxis.set_major_formatter("{x:g}")
        one.xaxis.set_minor_formatter(NullFormatter())
        one.set_title(panel.title)
    figure.supxlabel("seconds, method and evaluation", fontsize=8)
    figure.draw_without_rendering()
    for one, panel in zip(axes, panels, strict=True):
        _names(one, {names[n]: (row.seconds, score.value or 0.0) for n, (row, score) in panel.scores.items()})
    key = [f"{names[place]}  {labels[place]}" for place in drawn]
    figure.text(0, -0.02, "\n".join(key), va="top", ha="left", fontsize=7)
    return figure


def _point(axes: Axes, row: Row, score: Score, *, is_front: bool) -> None:
    value, interval = score.value or 0.0, score.interval
    if interval is not None:
        axes.plot([row.seconds, row.seconds], [interval.low, interval.high], color="#bbbbbb", linewidth=1, zorder=1)
    marker, colour = ("s" if row.is_baseline else "o"), ("#0072B2" if is_front else "#555555")
    axes.plot(
        [row.seconds], [value], marker, color=colour, markersize=4, markerfacecolor=colour if is_front else "white"
    )


def _names(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write a short name beside each point, where it lies on no other name and no point."""
    scale = axes.figure.dpi / 72
    at = {name: axes.transData.transform(point) / scale for name, point in points.items() if point[0] > 0}
    taken = list(at.values())
    for name, place in sorted(at.items(), key=lambda item: tuple(item[1])):
        free = (shift for shift in SHIFTS if all(_apart(place + shift, other) for other in taken))
        shift = next(free, SHIFTS[0])
        taken.append(place + shift)
        axes.annotate(
            name, points[name], xytext=shift, textcoords="offset points", ha="center", va="center", fontsize=7
        )


def _apart(one: Any, other: Any) -> bool:
    return bool(abs(one[0] - other[0]) > NAME_POINTS[0] or abs(one[1] - other[1]) > NAME_POINTS[1])


def _curve_figure(curves: Mapping[str, Sequence[Curve]], over: str) -> Figure:
    """Return a panel a task with a line a method; the untouched model is a level with its interval."""
    names = list(dict.fromkeys(curve.name for several in curves.values() for curve in several))
    if len(curves) > MOST_PANELS or len(names) > len(LINES):
        found = f"{counted(len(curves), 'panel')} of {counted(len(names), 'line')}"
        raise HarnessError(f"{found} fit on no page; choose by --task, --method, --model or --metric")
    panels = [Panel(title, {}, None) for title in curves]
    figure, axes = _grid(panels, COST_INCHES, is_shared=False)
    for one, (title, several) in zip(axes, curves.items(), strict=True):
        for curve in several:
            colour, marker = LINES[names.index(curve.name)]
            if curve.is_level:
                one.axhline(curve.values[0], color="black", linewidth=0.8, linestyle="--", label=curve.name)
                if curve.lows[0] is not None and curve.highs[0] is not None:
                    one.axhspan(curve.lows[0], curve.highs[0], color="black", alpha=0.07, linewidth=0)
                continue
            one.plot(
                curve.places, curve.values, color=colour, marker=marker, markersize=4, linewidth=1.2, label=curve.name
            )
            for place, low, high in zip(curve.places, curve.lows, curve.highs, strict=True):
                if low is not None and high is not None:
                    one.plot([place, place], [low, high], color=colour, linewidth=0.8, alpha=0.6)
        one.set_title(title)
    figure.supxlabel(over, fontsize=8)
    handles = {name: handle for one in axes for handle, name in zip(*one.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(0, -0.02), fontsize=7, frameon=False
    )
    return figure
