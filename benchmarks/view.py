"""How long the page of two runs takes: ``python benchmarks/view.py [--documents N] [--browser]``.

Writes two runs of generated questions, five shots before each, with two filters; makes the page that ``harness compare --html``
writes; with ``--browser`` loads it from its file in headless Chromium, searches and filters, and goes from document to document.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import platform
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.cli import main as harness
from harness.records import ledger, samples
from harness.records.record import Record

FILTERS = ("strict-match", "flexible-extract")
WORDS = re.findall(
    r"\w+",
    """
ships apples roads winter sells buys twice half each morning baker train garden letters coins river market school seven
dozen gives keeps carries counts remaining total altogether cost price hour minute day week left right more fewer than many
""",
)
SEARCHED = ["apples", "apples river", "baker", "b", "ba", "bak", "total 1", "nothing of it", "#123", ""]
READY = """
new Promise((done) => {
  const wait = () => (document.documentElement.dataset.NAME ? done(0) : setTimeout(wait, 5));
  wait();
})
"""
SEARCH = """
(async () => {
  const query = document.getElementById("query"), list = document.getElementById("list");
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const times = [];
  for (const text of TEXTS) {
    const start = performance.now();
    query.value = text;
    query.dispatchEvent(new Event("input", { bubbles: true }));
    list.getBoundingClientRect();
    const script = performance.now() - start;
    await frame();
    times.push([script, performance.now() - start]);
  }
  return times;
})()
"""
FILTER = """
(async () => {
  const show = document.getElementById("show"), list = document.getElementById("list"), times = [];
  for (let round = 0; round < 3; round++) for (const { value } of show.options) {
    const start = performance.now();
    show.value = value;
    show.dispatchEvent(new Event("change", { bubbles: true }));
    list.getBoundingClientRect();
    times.push([performance.now() - start, 0]);
    await new Promise((done) => setTimeout(done));
  }
  show.value = "all";
  show.dispatchEvent(new Event("change", { bubbles: true }));
  return times;
})()
"""
STEP = """
(async () => {
  const times = [], root = document.documentElement;
  for (let step = 0; step < 50; step++) {
    const before = root.dataset.shown, start = performance.now();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: step % 5 ? "j" : "f", bubbles: true }));
    for (let waited = 0; root.dataset.shown === before && waited < 400; waited++) await new Promise((done) => setTimeout(done));
    times.push([performance.now() - start, 0]);
  }
  return times;
})()
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=20_000, metavar="N", help="how many (default 20000)")
    parser.add_argument("--browser", action="store_true", help="load and use the page in headless Chromium, too")
    arguments = parser.parse_args()
    print(f"{arguments.documents:,} documents, two runs, {len(FILTERS)} filters, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        results, target = Path(folder) / "results", Path(folder) / "page.html"
        for method in ("baseline", "method"):
            size = _write_run(results, method, arguments.documents)
        print(f"{'sample file, each':30}{size / 1e6:>8.1f} MB")
        for words in (["compare", "method@baseline", "--records", str(results)],
                      ["compare", "method@baseline", "--records", str(results), "--html", str(target)]):  # fmt: skip
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                harness(words)
            name = "compare --html" if "--html" in words else "compare, on the terminal"
            print(f"{name:30}{time.perf_counter() - start:>8.1f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{'memory, at most':30}{peak:>8.0f} MB")
        print(f"{'page':30}{target.stat().st_size / 1e6:>8.1f} MB")
        if arguments.browser:
            _browse(target)
    return 0


def _rows(method: str, count: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of both filters, those of one filter after those of the other, as lm-eval writes them."""
    for name in FILTERS:
        draw, answered = random.Random(0), random.Random(method)
        shots = "\n\n".join(f"Question: {_words(draw, 40)}?\nAnswer: {_words(draw, 30)} #### {n}" for n in range(5))
        for number in range(count):
            question, target = f"{_words(draw, 45)}?", str(draw.randrange(1000))
            doc = {"question": question, "level": draw.randrange(5)}
            is_right = answered.random() < (0.4 if method == "baseline" else 0.45)
            said = f" {_words(answered, 90)}. #### {target if is_right else answered.randrange(1000)}"
            value = said.rpartition(" ")[2] if name == FILTERS[0] else said.split()[-1]
            content = hashlib.sha256(json.dumps(doc, indent=2, ensure_ascii=False).encode())
            yield {
                "doc_id": number, "doc": doc, "target": target,
                "arguments": {"gen_args_0": {"arg_0": f"{shots}\n\nQuestion: {question}\nAnswer:", "arg_1": {"until": ["\n\n"]}}},
                "resps": [[said]], "filtered_resps": [value], "filter": name, "metrics": ["exact_match"],
                "doc_hash": content.hexdigest(), "exact_match": float(is_right),
            }  # fmt: skip


def _words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


def _write_run(results: Path, method: str, count: int) -> int:
    """Write the records and samples of a run, and return how large the sample file is."""
    run = results / f"{method}-0123456789"
    path = run / "tiny" / f"{samples.PREFIX}questions.jsonl"
    path.parent.mkdir(parents=True)
    scores: dict[str, list[float]] = {name: [] for name in FILTERS}
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for row in _rows(method, count):
            scores[row["filter"]].append(row["exact_match"])
            line = (json.dumps(row) + "\n").encode()
            digest.update(line)
            file.write(line)
    part = {"path": f"tiny/{path.name}", "sha256": digest.hexdigest(), "rows": len(FILTERS) * count}
    records = [_record(run.name, method, name, values, part) for name, values in scores.items()]
    ledger.write(run / "records_questions.jsonl", records)
    return path.stat().st_size


def _record(run: str, method: str, name: str, values: list[float], part: dict[str, Any]) -> Record:
    mean = statistics.fmean(values)
    plugin = {} if method == "baseline" else {"name": method, "version": "1", "code_digest": "c"}
    places = ("python", "torch", "transformers", "lm_eval", "peft", "harness", "platform", "device")
    return Record.model_validate({
        "schema_version": 1, "created": "2026-01-01T00:00:00Z", "run": run, "plugin": plugin, "method": {"name": method},
        "model": {"name": "tiny", "digest": "0123456789abcdef", "dtype": "float32"},
        "tokenizer": {"digest": "d", "vocabulary": 400}, "task": {"name": "questions", "version": "1.0", "docs_digest": None},
        "metric": {"name": "exact_match", "filter": name, "higher_is_better": True, "aggregation": "mean"},
        "value": mean, "stderr": (mean * (1 - mean) / (len(values) - 1)) ** 0.5, "counts": {"docs": len(values)},
        "samples": part, "seeds": dict.fromkeys(("random", "numpy", "torch", "fewshot"), 0),
        "environment": dict.fromkeys(places, "1"), "batch_size": "8", "cost": {"apply_seconds": 1.0, "evaluate_seconds": 2.0},
    })  # fmt: skip


def _browse(target: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from chromium import Browser

    with Browser(timeout=120) as browser:
        browser.resize(1300, 900)
        opened = []
        for _ in range(3):
            start = time.perf_counter()
            browser.open(target)
            browser.run(READY.replace("NAME", "opened"))
            opened.append(time.perf_counter() - start)
        print(f"{'opened, first document shown':30}{statistics.median(opened):>8.2f} s (median of {len(opened)})")
        start = time.perf_counter()
        browser.run(READY.replace("NAME", "read"))
        print(
            f"{'all texts read for the search':30}{time.perf_counter() - start:>8.2f} s after that, in the background"
        )
        _print("search, script + layout", "and painted", browser.run(SEARCH.replace("TEXTS", json.dumps(SEARCHED * 2))))
        _print("filter, script + layout", "", browser.run(FILTER))
        _print("next document, until shown", "", browser.run(STEP))
        heap = browser.run("performance.memory.usedJSHeapSize") / 1e6
        print(f"{'heap':30}{heap:>8.0f} MB")
        if browser.messages:
            print(f"the page complained: {browser.messages[:3]}", file=sys.stderr)


def _print(name: str, second: str, times: list[list[float]]) -> None:
    for title, column in ((name, 0), (second, 1)):
        if title:
            milliseconds = [one[column] for one in times]
            print(f"{title:30}{statistics.median(milliseconds):>8.1f} ms, {max(milliseconds):.1f} ms at most")


if __name__ == "__main__":
    sys.exit(main())
