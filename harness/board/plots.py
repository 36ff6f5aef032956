"""Tables as pictures: SVG by hand, one pure function for each plot, readable without colour and without a mouse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from harness.board.tables import Metric, Row, Score, Table
from harness.names import printable

WIDTH = 380
MARGIN = 10
ROW_HEIGHT = 40
AXIS_HEIGHT = 44
SCATTER_HEIGHT = 260
# Rows drawn at most; a longer table says how many it has.
MOST_ROWS = 25
# Points of a scatter plot that have their names beside them; of more, those of the front.
MOST_NAMED = 6
MOST_POINTS = 300
LABEL_CHARACTERS = 48
MARKS = {"better": "▲", "worse": "▼", "": "●"}


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers to places along an axis."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, number: float) -> float:
        """Return the place of ``number``."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        place = (math.log(number) if self.is_log else number) - low
        return self.start + place / (high - low) * (self.end - self.start)

    @property
    def is_drawable(self) -> bool:
        """Whether the numbers leave room for places between them, which those near the largest float do not."""
        return math.isfinite(self.high - self.low) and self.high > self.low


def row_label(table: Table, row: Row) -> str:
    """Return what tells a row from the others of its table, short enough for a plot."""
    first = row.first
    parts = [row.label, *option_texts(table, row)]
    if table.has_models:
        parts.append(printable(first.model.name))
    if table.has_quantizations:
        parts.append(printable(first.model.quantization))
    return " · ".join(parts)


def option_texts(table: Table, row: Row) -> list[str]:
    """Return the options that differ in the table as ``name value``, and the code where it does."""
    if row.first.is_baseline:
        return []
    options = row.first.method.options
    said = [f"{printable(name)} {option_text(options[name])}" for name in table.options if name in options]
    return [*said, *([f"code {printable(row.code)}"] if table.has_codes else [])]


def option_text(value: object) -> str:
    """Return the value of an option as people write it."""
    return printable("none" if value is None else value)


def forest(table: Table, metric: Metric, name: str) -> str:
    """Return each method's difference to its baseline with interval, empty when there is none."""
    key = (metric.name, metric.filter)
    pairs = [(row, row.scores[key]) for row in table.rows if key in row.scores and row.scores[key].difference]
    shown = _best(pairs, metric)
    if not shown:
        return ""
    ends = [0.0]
    for _, score in shown:
        assert score.difference is not None
        found = (score.difference.value, score.difference.low, score.difference.high)
        ends += [number for number in found if number is not None]
    scale = _scale(ends, MARGIN, WIDTH - MARGIN)
    if not scale.is_drawable:
        return ""
    height = len(shown) * ROW_HEIGHT + AXIS_HEIGHT
    zero = scale(0.0)
    parts = [_axis(scale, height - AXIS_HEIGHT, _direction(metric)), _line(zero, 0, zero, height - AXIS_HEIGHT, "zero")]
    for number, (row, score) in enumerate(shown):
        parts.append(_forest_row(table, row, score, scale, number * ROW_HEIGHT))
    title = f"{metric.title}: difference to the baseline, 95 % intervals, not adjusted"
    return _svg(name, height, title, _counted(shown, pairs, "row"), parts)


def cost(table: Table, metric: Metric, name: str) -> str:
    """Return quality against seconds with the Pareto front, empty with fewer than two points."""
    key = (metric.name, metric.filter)
    sound = [(row, row.scores[key]) for row in table.rows if key in row.scores and not row.scores[key].unranked]
    points = [(row, score) for row, score in sound if score.value is not None and row.seconds > 0]
    if len(points) < 2 or metric.higher_is_better is None:
        return ""
    seconds = [row.seconds for row, _ in points]
    low, high = min(seconds), max(seconds)
    across = Scale(low / 1.25, high * 1.25, 56, WIDTH - MARGIN, is_log=True)
    values = [score.value for _, score in points if score.value is not None]
    up = _scale(values, SCATTER_HEIGHT - AXIS_HEIGHT, 14)
    if not (across.is_drawable and up.is_drawable):
        return ""
    front = pareto([(row.seconds, score.value or 0.0) for row, score in points], metric.higher_is_better)
    others = sorted(set(range(len(points))) - set(front), key=lambda n: (not points[n][0].first.is_baseline, n))
    drawn = [*front, *others][:MOST_POINTS]
    parts = [_cost_axes(across, up), _front(front, points, across, up)]
    for number in sorted(drawn):
        row, score = points[number]
        kind = "baseline" if row.first.is_baseline else "front" if number in front else "other"
        title = f"{row_label(table, row)}: {score.value:.4f}, {row.seconds:.4g} s"
        parts.append(_point(across(row.seconds), up(score.value or 0.0), kind, title))
    named = drawn if len(drawn) <= MOST_NAMED else front[:MOST_NAMED]
    parts += _names(table, named, points, across, up)
    names = "; ".join(row_label(table, points[number][0]) for number in front[:MOST_ROWS])
    title = f"{metric.title} against seconds, with the Pareto front"
    said = f"On the front, cheapest first: {names}. {len(drawn)} of {len(points)} rows drawn."
    return _svg(name, SCATTER_HEIGHT, title, said, parts)


def seeds(table: Table, metric: Metric, name: str) -> str:
    """Return the metric of each seed for rows that have several, empty when none has."""
    key = (metric.name, metric.filter)
    pairs = [
        (row, row.scores[key])
        for row in table.rows
        if key in row.scores and row.scores[key].deviation is not None and not row.scores[key].is_contradicted
    ]
    shown = _best(pairs, metric)
    if not shown:
        return ""
    values = [value for _, score in shown for _, value in score.by_seed if value is not None]
    scale = _scale(values, MARGIN, WIDTH - MARGIN)
    if not scale.is_drawable:
        return ""
    height = len(shown) * ROW_HEIGHT + AXIS_HEIGHT
    parts = [_axis(scale, height - AXIS_HEIGHT, metric.title)]
    for number, (row, score) in enumerate(shown):
        parts.append(_seed_row(table, row, score, scale, number * ROW_HEIGHT))
    return _svg(name, height, f"{metric.title} by seed", _counted(shown, pairs, "row"), parts)


def pareto(points: Sequence[tuple[float, float]], higher_is_better: bool) -> list[int]:
    """Return which ``(seconds, value)`` points no other beats in both, cheapest first; equal points are all kept."""
    sign = 1 if higher_is_better else -1
    order = sorted(range(len(points)), key=lambda n: (points[n][0], -sign * points[n][1], n))
    front: list[int] = []
    for number in order:
        if not front or sign * points[number][1] > sign * points[front[-1]][1] or points[number] == points[front[-1]]:
            front.append(number)
    return front


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two ends, at most ``most`` of them."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _best(pairs: list[tuple[Row, Score]], metric: Metric) -> list[tuple[Row, Score]]:
    sign = -1 if metric.higher_is_better is False else 1
    return sorted(pairs, key=lambda pair: -sign * (pair[1].value or 0.0))[:MOST_ROWS]


def _counted(shown: Sequence[object], pairs: Sequence[object], noun: str) -> str:
    plural = "" if len(pairs) == 1 else "s"
    return (
        f"{len(pairs)} {noun}{plural}."
        if len(shown) == len(pairs)
        else f"The best {len(shown)} of {len(pairs)} {noun}s."
    )


def _scale(numbers: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(numbers), max(numbers)
    room = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    return Scale(low - room, high + room, start, end)


def _direction(metric: Metric) -> str:
    if metric.higher_is_better is None:
        return "difference to the baseline"
    return "worse ←  difference  → better" if metric.higher_is_better else "better ←  difference  → worse"


def _forest_row(table: Table, row: Row, score: Score, scale: Scale, top: float) -> str:
    difference = score.difference
    assert difference is not None
    kind = difference.verdict or "same"
    text = f"{difference.value:+.4f} {MARKS[difference.verdict] if difference.verdict else ''}".strip()
    line = ""
    if difference.low is not None and difference.high is not None:
        line = _line(scale(difference.low), top + 27, scale(difference.high), top + 27, f"interval {kind}")
    return (
        _row_texts(row_label(table, row), text, kind, top)
        + line
        + _point(scale(difference.value), top + 27, kind, f"{row_label(table, row)}: {text}")
    )


def _seed_row(table: Table, row: Row, score: Score, scale: Scale, top: float) -> str:
    values = [(seed, value) for seed, value in score.by_seed if value is not None]
    places = [scale(value) for _, value in values]
    parts = [
        _row_texts(row_label(table, row), f"sd {score.deviation:.4f}", "same", top),
        _line(min(places), top + 27, max(places), top + 27, "interval same"),
    ]
    if score.value is not None:
        parts.append(_line(scale(score.value), top + 20, scale(score.value), top + 34, "mean"))
    points = zip(values, places, strict=True)
    parts += [_point(place, top + 27, "seed", f"seed {seed}: {value:.4f}") for (seed, value), place in points]
    return "".join(parts)


def _row_texts(label: str, text: str, kind: str, top: float) -> str:
    most = LABEL_CHARACTERS - len(text)
    short = label if len(label) <= most else f"{label[: most - 1]}…"
    return (
        f'<text class="label" x="{MARGIN}" y="{top + 15:.1f}">{escape(short)}</text>'
        f'<text class="value {kind}" x="{WIDTH - MARGIN}" y="{top + 15:.1f}">{escape(text)}</text>'
    )


def _axis(scale: Scale, bottom: float, text: str) -> str:
    marks = ticks(scale.low, scale.high)
    parts = [_line(MARGIN, bottom, WIDTH - MARGIN, bottom, "axis")]
    for number, said in zip(marks, _numbers(marks), strict=True):
        place = scale(number)
        parts.append(_line(place, 0, place, bottom, "grid"))
        parts.append(f'<text class="tick" x="{place:.1f}" y="{bottom + 16:.1f}">{said}</text>')
    parts.append(f'<text class="name" x="{WIDTH / 2:.1f}" y="{bottom + 36:.1f}">{escape(printable(text))}</text>')
    return "".join(parts)


def _cost_axes(across: Scale, up: Scale) -> str:
    bottom = SCATTER_HEIGHT - AXIS_HEIGHT
    parts = [_line(across.start, bottom, across.end, bottom, "axis")]
    marks = ticks(up.low, up.high, 5)
    for number, said in zip(marks, _numbers(marks), strict=True):
        parts.append(_line(across.start, up(number), across.end, up(number), "grid"))
        parts.append(f'<text class="tick side" x="{across.start - 6:.1f}" y="{up(number) + 4:.1f}">{said}</text>')
    for number in _log_ticks(across):
        parts.append(_line(across(number), bottom, across(number), bottom + 4, "axis"))
        parts.append(f'<text class="tick" x="{across(number):.1f}" y="{bottom + 16:.1f}">{number:g}</text>')
    middle = (across.start + across.end) / 2
    parts.append(
        f'<text class="name" x="{middle:.1f}" y="{bottom + 36:.1f}">seconds, method and evaluation (log)</text>'
    )
    return "".join(parts)


def _log_ticks(scale: Scale) -> list[float]:
    """Return at least two numbers 1, 2 or 5 times a power of ten within the scale, or its ends."""
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        found = [float(f"{f}e{p}") for p in powers for f in factors if scale.low <= float(f"{f}e{p}") <= scale.high]
        if len(found) >= 2:
            return found[:: max(1, len(found) // 5)]
    return [float(f"{scale.low * 1.25:.3g}")]


def _front(front: Sequence[int], points: Sequence[tuple[Row, Score]], across: Scale, up: Scale) -> str:
    """Return the front as steps: until the next point, nothing better is known at that price."""
    places = [(across(points[n][0].seconds), up(points[n][1].value or 0.0)) for n in front]
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
    return f'<path class="steps" d="{path}H{across.end:.1f}"/>'


def _names(
    table: Table, numbers: Sequence[int], points: Sequence[tuple[Row, Score]], across: Scale, up: Scale
) -> list[str]:
    """Return the names of points, moved apart where they would lie on each other."""
    labels, taken = [], list[float]()
    for number in numbers:
        row, score = points[number]
        x, y = across(row.seconds), up(score.value or 0.0) - 8
        free = (y + 13 * shift for step in range(20) for shift in (-step, step))
        y = next((p for p in free if p > 10 and p < up.start - 2 and all(abs(p - q) >= 13 for q in taken)), y)
        taken.append(y)
        side = "left" if x < WIDTH * 0.5 else "right"
        label = row_label(table, row)
        short = label if len(label) <= 34 else f"{label[:33]}…"
        labels.append(f'<text class="near {side}" x="{x:.1f}" y="{y:.1f}">{escape(short)}</text>')
    return labels


def _point(x: float, y: float, kind: str, title: str) -> str:
    """Return a mark whose form says what its colour does."""
    shapes: dict[str, Callable[[], str]] = {
        "better": lambda: f'<path class="{kind}" d="M{x:.1f} {y - 6:.1f}l6 11h-12z">',
        "worse": lambda: f'<path class="{kind}" d="M{x:.1f} {y + 6:.1f}l6 -11h-12z">',
        "baseline": lambda: f'<path class="{kind}" d="M{x - 5:.1f} {y - 5:.1f}h10v10h-10z">',
    }
    opening = shapes.get(kind, lambda: f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">')()
    return f"{opening}<title>{escape(title)}</title></{opening[1:].split()[0]}>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _numbers(marks: Sequence[float]) -> list[str]:
    """Return the marks of an axis with as many decimals as tell them apart."""
    step = marks[1] - marks[0] if len(marks) > 1 else abs(marks[0]) if marks else 1
    decimals = max(0, -math.floor(math.log10(step or 1) + 1e-9))
    return [f"{mark + 0.0:.{min(decimals, 6)}f}" for mark in marks]


def _svg(name: str, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(printable(title))}</title><desc id="{name}-d">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
