"""Figures: real files of matplotlib, the same bytes for the same records whatever names hold, and a sentence for none."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from board_records import HOSTILE, baseline, measured, record, write
from small_runs import Command

from harness.board.board import build, build_reading
from harness.board.columns import columns_of
from harness.errors import HarnessError
from harness.exports import figures
from harness.exports.curves import curves_of
from harness.records import ledger
from harness.records.record import Record

pytestmark = pytest.mark.usefixtures("fresh")

BEGINS = {"svg": b"<?xml", "pdf": b"%PDF-", "png": b"\x89PNG"}


def some() -> list[Record]:
    """Return records of the untouched model and three methods on two tasks."""
    return [
        record(value, method=method, stderr=0.02, task={"name": task}, cost={"apply_seconds": 10.0 * n})
        for task in "ab"
        for n, (method, value) in enumerate((("baseline", 0.5), ("x", 0.7), ("y", 0.4), ("z", 0.52)))
    ]


@pytest.mark.parametrize("shape", ["differences", "cost"])
@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_same_records_give_the_same_file(kind: str, shape: str) -> None:
    board = build(some())
    first = figures.draw(board, shape, kind)
    assert first.startswith(BEGINS[kind]) and first == figures.draw(board, shape, kind)
    if kind == "svg":
        panels = [one for one in ElementTree.fromstring(first).iter() if str(one.get("id")).startswith("axes_")]
        assert len(panels) == 2


def test_a_difference_of_answers_that_are_the_same_is_said_in_words(tmp_path: Path) -> None:
    """A point at 0 without an interval would be read as one that is known exactly."""
    scores = {"baseline": 0, "x": 0, "y": 1}
    records = [
        record(method=name, **measured(tmp_path, name, {n: float((n + shift) % 3 == 0) for n in range(60)}))
        for name, shift in scores.items()
    ]
    file = write(tmp_path / "records.jsonl", records)
    drawn = figures.draw(build_reading(ledger.read(file)), "differences", "svg")
    assert drawn.count(b"same on every document") == 1, "of x, not of y, whose mean is the same"
    assert b"same on every document" not in figures.draw(build(some()), "differences", "svg")


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\ud83d" not in name])
def test_names_are_text_and_no_mathematics(name: str) -> None:
    records = [
        baseline(0.5, stderr=0.02, task={"name": name}),
        record(0.7, method=name, stderr=0.02, task={"name": name}),
    ]
    for shape in ("differences", "cost"):
        ElementTree.fromstring(figures.draw(build(records), shape, "svg"))


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(HarnessError, match="needs a method beside its untouched model"):
        figures.draw(build([record(0.5)]), "differences", "svg")
    with pytest.raises(HarnessError, match="needs two rows of one task"):
        figures.draw(build([record(0.5)]), "cost", "svg")
    many = [baseline(0.5), *(record(0.5, method=f"m{n}") for n in range(80))]
    with pytest.raises(HarnessError, match="1 panel of 80 rows fit on no page; choose by --task"):
        figures.draw(build(many), "differences", "svg")


def test_the_command_writes_figures_and_refuses_what_does_not_go_together(cli: Command) -> None:
    write(Path("results/records.jsonl"), some())
    made = cli("export", "-o", "figure.pdf", "-o", "figure.svg", "-o", "table.tex")
    assert (made.code, made.out) == (0, "wrote figure.pdf\nwrote figure.svg\nwrote table.tex\n")
    assert (
        cli("export", "--shape", "cost", "-o", "cost.png").code == 0 and Path("cost.png").read_bytes()[:4] == b"\x89PNG"
    )
    for words, said in (
        (["-o", "x.csv", "--format", "latex"], "'x.csv' is csv by its ending, and --format says latex"),
        (["-o", "x.svg", "--shape", "runs"], "there is no svg of --shape runs, but of differences and cost"),
        (["--format", "pdf"], "pdf is no text to print; name a file with -o FILE.pdf"),
    ):
        refused = cli("export", *words)
        assert refused.code == 2 and said in refused.sentence
        assert not Path("x.csv").exists() and not Path("x.svg").exists()


def test_matplotlib_is_read_for_figures_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "records.jsonl", some())
    code = (
        "import sys; sys.modules['matplotlib'] = None; from harness.cli import main;"
        f"print(main(['export', {str(file)!r}]), main(['export', {str(file)!r}, '-o', {str(tmp_path / 'x.svg')!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.endswith("0 2\n") and "pip install 'token-harness[plots]'" in run.stderr


def steps(*numbers: int, **more: object) -> list[Record]:
    """Return records of one method with several numbers of steps, and of the untouched model."""
    found = [record(0.5 + n / 100, options={"steps": n, "rank": 4}, stderr=0.02, **more) for n in numbers]
    return [baseline(0.5, stderr=0.02, **more), *found]


def test_a_curve_has_a_line_for_what_otherwise_stays_the_same() -> None:
    records = [
        *steps(10, 20, 5),
        record(0.9, options={"steps": 10, "rank": 8}),
        record(0.95, options={"steps": 20, "rank": 8}),
    ]
    [lines] = curves_of(columns_of(build(records).tables), "steps").values()
    assert [(one.name, one.places, one.is_level) for one in lines] == [
        ("baseline", (0.0,), True), ("p:m (rank=4)", (5.0, 10.0, 20.0), False), ("p:m (rank=8)", (10.0, 20.0), False)
    ]  # fmt: skip
    assert lines[1].values == pytest.approx((0.55, 0.6, 0.7)) and all(low is not None for low in lines[1].lows)
    assert figures.draw(build(records), "curve", "svg", over="steps").startswith(b"<?xml")


def test_checkpoints_are_a_curve_over_the_last_number_of_their_name() -> None:
    records = [
        record(
            0.4 + n / 1000,
            method="baseline",
            model={"name": f"smol-135m/checkpoint-{n}", "digest": str(n) * 4},
            stderr=0.02,
        )
        for n in (100, 200, 300)
    ]
    [lines] = curves_of(columns_of(build(records).tables), "model").values()
    assert [(one.name, one.places) for one in lines] == [("baseline", (100.0, 200.0, 300.0))]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "stepz"], "no row has a number 'stepz'; options are rank, steps"),
        (["--over", "rank"], "no method has two numbers 'rank' with the rest alike"),
        (["--shape", "curve"], "a curve is over a number; name an option"),
        (["--shape", "cost", "--over", "steps"], "--over is of --shape curve, not cost"),
    ],
)
def test_what_is_no_curve_is_said(cli: Command, words: list[str], said: str) -> None:
    write(Path("results/records.jsonl"), steps(10, 20))
    refused = cli("export", *words, "-o", "x.svg")
    assert refused.code == 2 and said in refused.sentence and not Path("x.svg").exists()
