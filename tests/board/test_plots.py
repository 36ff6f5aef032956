"""The plots: every row with a difference is drawn, the front is the front, and text stays text."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET

import pytest
from board_records import HOSTILE, UNUSUAL, baseline, record

from harness.board import plots
from harness.board.board import build
from harness.board.tables import Table
from harness.names import printable

SVG = {"svg", "title", "desc", "text", "line", "path", "circle"}


def table(*records: object) -> Table:
    [only] = build(list(records)).tables  # type: ignore[arg-type]
    return only


def drawn(text: str) -> ET.Element:
    """Return a plot as XML, which a browser's parser has to agree with."""
    root = ET.fromstring(text)
    assert {one.tag for one in root.iter()} <= SVG
    assert root.get("role") == "img" and root[0].tag == "title" and root[1].tag == "desc"
    assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
    for one in root.iter():
        for name, value in one.attrib.items():
            assert name in {
                "viewBox",
                "role",
                "aria-labelledby",
                "id",
                "class",
                "x",
                "y",
                "x1",
                "x2",
                "y1",
                "y2",
                "d",
                "cx",
                "cy",
                "r",
            }
            assert "nan" not in value and "inf" not in value
    return root


def test_the_forest_has_a_mark_for_each_row_whose_form_says_the_verdict() -> None:
    made = table(
        baseline(0.5, stderr=0.01),
        *(record(value, method=name, stderr=0.01) for name, value in (("up", 0.6), ("down", 0.4), ("same", 0.501))),
    )
    root = drawn(plots.forest(made, made.metrics[0], "a"))
    marks = {(one.tag, one.get("class")) for one in root.iter() if one.find("title") is not None and one.tag != "svg"}
    assert marks == {("path", "better"), ("path", "worse"), ("circle", "same")}
    assert [one.text for one in root.iter("text") if one.get("class") == "label"] == ["p:up", "p:same", "p:down"]


def test_no_baseline_no_forest_no_seeds_no_plot_of_seeds_one_row_no_cost() -> None:
    made = table(record(0.5))
    assert [plot(made, made.metrics[0], "a") for plot in (plots.forest, plots.cost, plots.seeds)] == ["", "", ""]


def test_every_seed_is_a_mark() -> None:
    made = table(*(record(0.1 * seed, seed=seed) for seed in range(1, 5)))
    root = drawn(plots.seeds(made, made.metrics[0], "a"))
    titles = [one.findtext("title") for one in root.iter("circle")]
    assert titles == [f"seed {seed}: {0.1 * seed:.4f}" for seed in range(1, 5)]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_front_is_what_no_other_point_beats(higher_is_better: bool) -> None:
    draw = random.Random(0)
    sign = 1 if higher_is_better else -1
    for _ in range(200):
        points = [(draw.randint(1, 8) * 1.0, draw.randint(1, 8) / 8) for _ in range(draw.randint(1, 12))]
        front = plots.pareto(points, higher_is_better)
        for number, (seconds, value) in enumerate(points):
            is_beaten = any(
                other <= seconds and sign * better >= sign * value and (other, better) != (seconds, value)
                for other, better in points
            )
            assert (number in front) == (not is_beaten)
        assert [points[number][0] for number in front] == sorted(points[number][0] for number in front)


def test_cost_tells_the_front_in_words_and_draws_every_row() -> None:
    made = table(
        *(
            record(value, method=name, cost={"apply_seconds": 0, "evaluate_seconds": seconds})
            for name, value, seconds in (("cheap", 0.5, 1), ("bad", 0.4, 10), ("dear", 0.9, 100))
        )
    )
    root = drawn(plots.cost(made, made.metrics[0], "a"))
    assert root.findtext("desc") == "On the front, cheapest first: p:cheap; p:dear. 3 of 3 rows drawn."
    assert len([one for one in root if one.tag in {"circle", "path"} and one.find("title") is not None]) == 3


def test_ticks_are_round_and_within_the_ends() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        low = draw.uniform(-1, 1) * 10 ** draw.randint(-6, 6)
        high = low + draw.random() * 10 ** draw.randint(-6, 6) + abs(low) * 1e-6 + 1e-9
        marks = plots.ticks(low, high)
        assert 1 <= len(marks) <= 8
        assert all(low - (high - low) * 1e-6 <= mark <= high + (high - low) * 1e-6 for mark in marks)


@pytest.mark.parametrize("name", [*HOSTILE, *UNUSUAL], ids=ascii)
def test_a_hostile_name_is_text_in_every_plot(name: str) -> None:
    records = [baseline(0.5, stderr=0.1, model={"name": name}, metric={"name": name})]
    records += [
        record(
            0.5 + seed / 10,
            method=name,
            seed=seed,
            stderr=0.1,
            model={"name": name},
            metric={"name": name},
            plugin={"name": name},
        )
        for seed in range(2)
    ]
    made = table(*records)
    shown = printable(name)
    for plot in (plots.forest, plots.cost, plots.seeds):
        text = "".join(drawn(plot(made, made.metrics[0], "a")).itertext())
        assert shown[:30] in text
        assert all(character.isprintable() for character in text)


def test_numbers_without_measure_are_left_out() -> None:
    for value in (1e308, -1e308, 0.0, 1e-300):
        made = table(baseline(-value, stderr=1e308), record(value, stderr=1e308), record(value, seed=1, stderr=0.0))
        for plot in (plots.forest, plots.cost, plots.seeds):
            text = plot(made, made.metrics[0], "a")
            assert not text or drawn(text)


def test_a_long_table_says_how_many_rows_are_drawn() -> None:
    made = table(baseline(0.5, stderr=0.1), *(record(0.5, method=f"m{n}", stderr=0.1) for n in range(60)))
    assert drawn(plots.forest(made, made.metrics[0], "a")).findtext("desc") == "The best 25 of 60 rows."
