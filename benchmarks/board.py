"""How long a board of many records takes: ``python benchmarks/board.py [--records N] [--shape wide|deep] [--browser]``.

Reads generated records, builds the tables, writes both pages; with ``--browser`` loads the page in headless Chromium and
filters it. ``deep``: one task with thousands of rows. ``wide``: 50 tasks, 20 models, five seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.board import board, markdown_page, page
from harness.records import ledger
from harness.records.record import SettingsPart

ROUNDS = 20
FILTER = """
(async () => {
  const query = document.getElementById("query");
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const times = [];
  for (const text of WORDS) {
    const start = performance.now();
    query.value = text;
    query.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    const script = performance.now() - start;
    await frame();
    times.push([script, performance.now() - start]);
  }
  return times;
})()
"""


def main() -> int:
    """Measure and print; 1 when a line was no record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000, metavar="N", help="how many (default 10000)")
    parser.add_argument("--shape", choices=("wide", "deep"), default="wide", help="many tasks, or one long table")
    parser.add_argument("--browser", action="store_true", help="load and filter in headless Chromium, too")
    arguments = parser.parse_args()
    print(f"{arguments.records:,} records, {arguments.shape}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.jsonl"
        with file.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(content) + "\n" for content in generated(arguments.records, arguments.shape))
        print(f"{'file':24}{file.stat().st_size / 1e6:>8.1f} MB")
        target = Path(folder) / "index.html"
        problems = _render(file, target)
        if arguments.browser:
            _browse(target, arguments.shape)
    return 1 if problems else 0


def generated(count: int, shape: str) -> Iterator[dict[str, Any]]:
    """Yield the content of ``count`` records, the same each time."""
    draw = random.Random(0)
    for number in range(count):
        if shape == "deep":
            yield _content(draw, task=0, model=number % 20, method=number // 20, seed=0, metric="acc")
            continue
        rest, metric = divmod(number, 2)
        rest, task = divmod(rest, 50)
        rest, model = divmod(rest, 20)
        method, seed = divmod(rest, 5)
        yield _content(draw, task=task, model=model, method=method, seed=seed, metric=("acc", "acc_norm")[metric])


def _content(draw: random.Random, *, task: int, model: int, method: int, seed: int, metric: str) -> dict[str, Any]:
    value = min(max(draw.gauss(0.5 + 0.01 * model, 0.05), 0.01), 0.99)
    is_baseline = method == 0
    options = {} if is_baseline else {"scheme": f"scheme{method % 7}", "steps": 10 * method, "rate": 1e-4, "file": None}
    plugin = {} if is_baseline else {"name": "method", "distribution": "a-method", "version": "1.0", "code_digest": "c"}
    command = f"harness eval --plugin method --method_args steps={10 * method} --tasks task{task} --seed {seed}"
    return {
        "schema_version": 1,
        "created": f"2026-01-{number_of_day(seed):02}T00:00:00Z",
        "plugin": plugin,
        "method": {"name": "baseline" if is_baseline else "method", "options": options},
        "model": {"name": f"model-{model}", "digest": f"{model:064x}", "dtype": "bfloat16", "parameters": 10**9},
        "tokenizer": {"digest": "d" * 64, "vocabulary": 50_000, "prefix_token_id": 1},
        "task": {"name": f"task{task}", "version": "1.0", "docs_digest": f"{task:016x}"},
        "metric": {"name": metric, "higher_is_better": True},
        "value": value,
        "stderr": (value * (1 - value) / 1000) ** 0.5,
        "counts": {"docs": 1000, "requests": 4000},
        "settings": SettingsPart(num_fewshot=0).model_dump(),
        "seeds": dict.fromkeys(("random", "numpy", "torch", "fewshot"), seed),
        "environment": dict.fromkeys(
            ("python", "torch", "transformers", "lm_eval", "peft", "harness", "platform", "device"), "1.0"
        ),
        "batch_size": "auto",
        "cost": {"apply_seconds": 60.0 * method, "evaluate_seconds": 10 + draw.random(), "apply_peak_bytes": 10**9},
        "command": command,
    }


def number_of_day(seed: int) -> int:
    """Return a day of the month."""
    return seed % 28 + 1


def _render(file: Path, target: Path) -> list[str]:
    reading = _timed("read", lambda: ledger.read(file))
    built = _timed("build tables", lambda: board.build_reading(reading))
    markdown = _timed("Markdown", lambda: markdown_page.render_board(built))
    html = _timed("HTML", lambda: page.render(built))
    target.write_text(html, encoding="utf-8")
    print(f"{'tables, rows':24}{len(built.tables):>8,}, {sum(len(table.rows) for table in built.tables):,}")
    print(f"{'Markdown, HTML':24}{len(markdown) / 1e6:>8.1f} MB, {len(html) / 1e6:.1f} MB")
    return reading.problems


def _timed(name: str, call: Callable[[], Any]) -> Any:
    start, busy = time.perf_counter(), time.process_time()
    result = call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"{name:24}{seconds:>8.2f} s ({busy:.2f} s of this process), {peak:.0f} MB at most so far")
    return result


def _browse(target: Path, shape: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from chromium import Browser

    asked = ["scheme1", "scheme12", "model-3", "", "s", "st", "ste", "steps 70", "nothing", ""]
    with Browser() as browser:
        browser.resize(1280, 900)
        loads = [browser.open(target) for _ in range(3)]
        times = browser.run(FILTER.replace("WORDS", json.dumps(asked * (ROUNDS // len(asked)))))
        heap = browser.run("performance.memory.usedJSHeapSize") / 1e6
        print(f"{'Chromium, load':24}{statistics.median(loads):>8.2f} s (median of {len(loads)}), heap {heap:.0f} MB")
        for name, column in (("filter, script + layout", 0), ("filter until painted", 1)):
            milliseconds = [one[column] for one in times]
            print(f"{name:24}{statistics.median(milliseconds):>8.1f} ms, {max(milliseconds):.1f} ms at most")
        if browser.messages:
            print(f"the page complained: {browser.messages[:3]} ({shape})", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
