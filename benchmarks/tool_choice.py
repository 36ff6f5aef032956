"""How well tools are chosen, by examples per tool and by what the rows start from; records, a table and a plot.

    python benchmarks/tool_choice.py funcqa --data FOLDER --output results/tool_choice
    python benchmarks/tool_choice.py kamel  --data FOLDER --output results/tool_choice

Every cell is an ordinary run of ``harness eval``; one that is in ``cells.jsonl`` already is not run again. Frozen states are
cached, so that a run takes seconds once the texts went through the model. Samples are left out of the records: no licence is
stated for most of the data, so its texts are not for publishing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What rows start from, by the name it has in tables.
STARTS: dict[str, dict[str, Any]] = {
    "random": {"variant": "random_start"},
    "zeros": {"variant": "zero_start"},
    "hidden mean, as released": {"prior": "hidden_mean", "prior_text": "{name}", "prior_length": "unit/sqrt(d)"},
    "hidden mean, centred": {"prior": "hidden_mean", "centre": True, "prior_length": 0.5},
    "head rows, name": {},
    "head rows, description": {"prior_text": " {description}"},
}
SHOTS = (0, 1, 3, 10, None)
PENALTIES = (1e-3, 1e-2, 1e-1)
METRICS = ("selection", "recall", "false")


@dataclass(frozen=True)
class Cell:
    """One run: the start, examples per tool (None: all), the penalty, the draw of held-out rows and that of shots.

    Without a draw of held-out rows the questions are always the same, a test set.
    """

    start: str
    shots: int | None
    penalty: float
    holdout_seed: int | None
    seed: int

    @property
    def is_of_table(self) -> bool:
        """Whether both draws go together; the others are for the leaderboard, which averages over equal questions."""
        return self.holdout_seed is None or self.holdout_seed == self.seed


def main() -> int:
    """Run what is missing, then print the table and draw the plot."""
    arguments = _parser().parse_args()
    os.environ["HARNESS_TOOL_DATA"] = str(arguments.data.resolve())
    cells = list(_cells(arguments))
    output = arguments.output / arguments.rows
    notes = output / "cells.jsonl"
    done = _read(notes)
    for number, cell in enumerate(cells, start=1):
        if repr(cell) not in done:
            started = time.monotonic()
            scores = run(arguments, cell, output)
            done[repr(cell)] = scores
            notes.parent.mkdir(parents=True, exist_ok=True)
            with notes.open("a", encoding="utf-8") as file:
                file.write(json.dumps([repr(cell), scores]) + "\n")
            print(f"{number} of {len(cells)}: {cell}, {time.monotonic() - started:.1f} s", file=sys.stderr)
    cells = [cell for cell in cells if cell.is_of_table]
    for title, chosen in _tables(cells):
        print(f"\n{title}\n\n{table(chosen, done)}")
    if arguments.plot:
        plot(cells, done, arguments.plot)
    return 0


def run(arguments: argparse.Namespace, cell: Cell, output: Path) -> dict[str, float]:
    """Evaluate one cell and return its scores by metric."""
    from harness.run.evaluating import evaluate
    from harness.run.run import Run

    options: dict[str, Any] = {"bias": 0.0, "penalty": cell.penalty, **STARTS[cell.start]}
    metadata: dict[str, Any] = {}
    if arguments.rows == "funcqa":
        options |= {"train_file": "funcqa_train.jsonl", "holdout": 10, "holdout_seed": cell.holdout_seed}
        metadata = {"holdout": 10, "holdout_seed": cell.holdout_seed}
        task = "tool_choice"
    else:
        options |= {"tools": [f"kamel_relations.jsonl[:{arguments.tools}]"]}
        options |= {"train_file": "kamel_synthetic_train.jsonl"}
        task = f"tool_choice_kamel_{arguments.tools}"
    if cell.shots is not None:
        options["shots_per_tool"] = cell.shots
    plan = Run(
        tasks=(task,),
        plugin="tool_tokens",
        method_args=options,
        metadata=metadata,
        seeds=(cell.seed, 1234, 1234, 1234),
        model_args={"pretrained": arguments.model} if arguments.model else {},
        output_path=output,
        log_samples=False,
    )
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        records = evaluate(plan)
    return {record.metric.name: float(record.value) for record in records if record.value is not None}


def table(cells: Sequence[Cell], done: dict[str, dict[str, float]]) -> str:
    """Return Markdown: a row for each start and penalty, a column for each number of examples, mean and spread of draws."""
    shots = list(dict.fromkeys(cell.shots for cell in cells))
    lines = ["| start | penalty | metric | " + " | ".join("all" if s is None else str(s) for s in shots) + " |"]
    lines.append("|---|---|---|" + "---|" * len(shots))
    for start, penalty in dict.fromkeys((cell.start, cell.penalty) for cell in cells):
        for metric in METRICS:
            found = [
                [done[repr(c)][metric] for c in cells if (c.start, c.penalty, c.shots) == (start, penalty, s)]
                for s in shots
            ]
            lines.append(f"| {start} | {penalty:g} | {metric} | " + " | ".join(map(_mean_and_spread, found)) + " |")
    return "\n".join(lines)


def plot(cells: Sequence[Cell], done: dict[str, dict[str, float]], path: Path) -> None:
    """Draw selection and recall against examples per tool, one line for each start; bars are the range of draws."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("the plot needs matplotlib; pip install matplotlib, or leave --plot out") from None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tool choice"
    from matplotlib import pyplot

    plain = [cell for cell in cells if cell.penalty == 0]
    shots = list(dict.fromkeys(cell.shots for cell in plain))
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axis, metric in zip(axes, METRICS, strict=False):
        for start in STARTS:
            values = [[done[repr(c)][metric] for c in plain if (c.start, c.shots) == (start, s)] for s in shots]
            means = [statistics.mean(found) for found in values]
            low = [mean - min(found) for mean, found in zip(means, values, strict=True)]
            high = [max(found) - mean for mean, found in zip(means, values, strict=True)]
            axis.errorbar(range(len(shots)), means, yerr=[low, high], marker="o", capsize=2, label=start)
        axis.set_title({"selection": "the right tool is the best", "recall": "and beats every word"}[metric])
        axis.set_xticks(range(len(shots)), ["all" if s is None else str(s) for s in shots])
        axis.set_xlabel("examples per tool")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of calls")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    has_draws = arguments.rows == "funcqa"
    for start in STARTS:
        for shots in SHOTS:
            for draw in range(arguments.draws):
                for holdout_seed in sorted({0, draw}) if has_draws else [None]:
                    yield Cell(start, shots, 0.0, holdout_seed, draw)
    for start in ("random", "head rows, name") if arguments.penalties else ():
        for penalty in PENALTIES:
            for shots in (1, 3, 10):
                for draw in range(arguments.draws):
                    yield Cell(start, shots, penalty, draw if has_draws else None, draw)


def _tables(cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    draws = len({cell.seed for cell in cells})
    yield f"Without penalty, mean of {draws} draws ± standard deviation", [c for c in cells if not c.penalty]
    penalised = [cell for cell in cells if cell.penalty]
    if penalised:
        starts, shots = {cell.start for cell in penalised}, {cell.shots for cell in penalised}
        beside = [c for c in cells if not c.penalty and c.start in starts and c.shots in shots]
        yield "Squared penalty", sorted([*beside, *penalised], key=lambda c: (c.start, c.penalty))


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _read(path: Path) -> dict[str, dict[str, float]]:
    if not path.exists():
        return {}
    return dict(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("]"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", choices=["funcqa", "kamel"], help="whose rows")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder with the data of ToolkenGPT")
    parser.add_argument(
        "--output", type=Path, default=Path("results/tool_choice"), metavar="DIR", help="for the records"
    )
    parser.add_argument(
        "--model", metavar="PATH", help="a model's folder; by default the embedded SmolLM2-135M-Instruct"
    )
    parser.add_argument("--tools", type=int, default=30, metavar="N", help="KAMEL: how many relations (default 30)")
    parser.add_argument("--draws", type=int, default=3, metavar="N", help="draws of rows (default 3)")
    parser.add_argument("--penalties", action="store_true", help="also with a squared penalty of 0.001, 0.01 and 0.1")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a plot, .svg or .png (needs matplotlib)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
