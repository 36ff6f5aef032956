"""Two builds of the harness, side by side: ``python benchmarks/builds.py OLD NEW [--rounds 5] [EVAL FLAGS]``.

OLD and NEW are source trees. Each answers the same ``harness eval`` command in a process of its own, taking turns; equal
scores are asserted first. Printed are, of each build, the least and the median of the processor seconds of the whole process
and of the seconds that scoring took (``cost.scoring`` of its records), and the ratios NEW / OLD of both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = ["--tasks", "langgame,addition_3digit", "--limit", "24"]


def run(build: Path, flags: list[str], output: Path) -> tuple[float, float, dict[str, float]]:
    """Run the command with one build; return processor seconds, seconds of scoring, and the scores by task and metric."""
    folders = [build, *(build / name for name in ("plugins", "tasks"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "harness.cli", "eval", "--output_path", str(output), *flags]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(said)
    lines = [line for path in output.rglob("records_*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    records = [json.loads(line) for line in lines]
    scores = {f"{record['task']['name']} {record['metric']['name']}": record["value"] for record in records}
    of_tasks = {record["task"]["name"]: record["cost"]["scoring"] for record in records}
    seconds = sum(sum(cost["seconds"].values()) for cost in of_tasks.values() if cost)
    return used.ru_utime + used.ru_stime, seconds, scores


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each build (default 5)")
    arguments, flags = parser.parse_known_args()
    builds = {"old": arguments.old.resolve(), "new": arguments.new.resolve()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in builds}
    scores: dict[str, dict[str, float]] = {}
    for number in range(arguments.rounds):
        for name, build in builds.items() if number % 2 == 0 else reversed(builds.items()):
            with tempfile.TemporaryDirectory() as folder:
                process, scoring, scores[name] = run(
                    build, [flag for flag in flags if flag != "--"] or FLAGS, Path(folder)
                )
            taken[name].append((process, scoring))
    differing = [key for key in scores["old"] if abs(scores["old"][key] - scores["new"].get(key, float("nan"))) > 1e-9]
    if differing or scores["old"].keys() != scores["new"].keys():
        sys.exit(f"the builds give other scores: {', '.join(differing)}")
    print(f"{len(scores['new'])} equal scores, {arguments.rounds} turns each")
    for column, what in enumerate(("processor seconds of the process", "seconds of scoring")):
        old, new = ([turn[column] for turn in taken[name]] for name in builds)
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        print(
            f"{what}: old {min(old):.2f} least, {statistics.median(old):.2f} median; new {min(new):.2f}, "
            f"{statistics.median(new):.2f}; new / old {min(new) / min(old):.3f} of least, {statistics.median(ratios):.3f} "
            f"median of pairs ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
