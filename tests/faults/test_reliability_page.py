"""The page of measured figures: a failure stays until the same thing has been measured again."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIGURE: dict[str, Any] = {
    "topic": "Kills", "claim": "lost", "subject": "harness", "value": "0", "n": 1000, "failures": 0, "target": "0", "seed": 1,
    "note": "", "date": "2026-01-02", "commit": "abc", "machine": "2 CPUs", "command": "python benchmarks/durability.py",
}  # fmt: skip


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reliability", ROOT / "docs" / "make_reliability.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_figure_stands_with_date_commit_n_and_failures(page: ModuleType) -> None:
    text = page.render([FIGURE])
    assert "| lost | harness | 0 | 0 | 1,000 | 0 | 1 | 2026-01-02 | `abc` |" in text
    assert "1 figures, 0 of them failed" in text


def test_a_failed_figure_is_seen_until_it_was_measured_again(page: ModuleType) -> None:
    failed = FIGURE | {"value": "3", "failures": 3, "note": "record 7"}
    text = page.render([FIGURE, failed])
    assert "**3, failed** (record 7)" in text
    assert "1 of them failed" in text
    assert "failed**" not in page.render([failed, FIGURE])


def test_what_only_stands_beside_ours_does_not_fail(page: ModuleType) -> None:
    text = page.render([FIGURE | {"subject": "buffered | plain", "value": "389", "failures": 389, "target": ""}])
    assert "| buffered \\| plain | 389 |" in text
    assert "0 of them failed" in text


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"topic": "x"}'])
def test_a_line_that_is_no_figure_is_told(line: str, page: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "figures.jsonl"
    file.write_text(json.dumps(FIGURE) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"figures\.jsonl, line 2 is no figure"):
        page.read(file)


def test_a_measurement_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    parts_of = importlib.import_module("durability_parts")
    path, done = tmp_path / "f.jsonl.parts", list[str]()

    def measure(part: str) -> tuple[str, float]:
        if part == "c" and len(done) < 3:
            raise OSError("no process is left")
        done.append(part)
        return part, float("inf")

    with pytest.raises(OSError, match="no process is left"):
        parts_of.Parts(path, "kills 9 abc").each("abcd", measure)
    path.write_bytes(path.read_bytes() + b'["kills 9 abc", "d", [to')  # a kill within a line
    done.append("another section")
    parts = parts_of.Parts(path, "kills 9 abc")
    assert parts.each("abcd", measure) == [[part, float("inf")] for part in "abcd"]
    assert (done, parts.reused) == (["a", "b", "another section", "c", "d"], 2)
    assert parts_of.Parts(path, "kills 9 other code")._known == {}
    parts_of.forget(path)
    assert list(tmp_path.glob("f.jsonl.parts")) == []


def test_the_benchmark_writes_figures_the_page_takes(page: ModuleType, tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(ROOT / "benchmarks" / "durability.py"),
        "--fuzz",
        "5",
        "--output",
        str(tmp_path / "f.jsonl"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.parts"))
    assert "| wrong numbers read" in done.stdout
    figures = page.read(tmp_path / "f.jsonl")
    assert {figure["n"] for figure in figures} == {5}
    assert all(figure["date"] and figure["commit"] and figure["seed"] for figure in figures)
    assert "## Files with damaged bytes" in page.render(figures)
