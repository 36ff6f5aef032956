"""What packages announce is found as importlib.metadata finds it, and without importing that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from harness.packages import announced

LINES = "[harness]\nodd = odd_module\n"
HEAD = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: for a test\n"
PROGRAM = """\
import sys
from harness.packages import announced
print([found.name for found in announced("harness")], "importlib.metadata" in sys.modules)
"""


def put(
    site: Path, folder: str, lines: str | None = LINES, *, name: str = "odd", version: str = "1", head: str = HEAD
) -> Path:
    """Write what describes a package."""
    info = site / folder
    info.mkdir(parents=True)
    metadata = head.format(name=name, version=version)
    (info / ("METADATA" if folder.endswith(".dist-info") else "PKG-INFO")).write_text(metadata, encoding="utf-8")
    if lines is not None:
        (info / "entry_points.txt").write_text(lines, encoding="utf-8")
    return site


def test_packages_that_announce_nothing_import_no_library(tmp_path: Path) -> None:
    """Most packages have no entry points at all: theirs are found missing, without asking importlib.metadata."""
    put(put(tmp_path, "silent-1.dist-info", None, name="silent"), "odd-1.dist-info")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split("] ") == ["['odd'", "False\n"]


SITES: dict[str, Callable[[Path], list[object]]] = {
    "two versions, spelt apart": lambda at: [
        put(at / "a", "odd_one-1.dist-info", name="odd-one"),
        put(at / "b", "Odd.one-2.dist-info", name="Odd.one", version="2"),
    ],
    "beside an older one of setuptools": lambda at: [
        put(put(at, "odd-1.dist-info"), "odd.egg-info", "[harness]\nodd = older\n", version="0.9")
    ],
    "left by an interrupted pip": lambda at: [
        put(put(put(at, "odd-1.dist-info"), "-dd-1.dist-info"), "-ther-1.dist-info", "[harness]\na=b\n", name="other")
    ],
    "a summary of two lines": lambda at: [put(at, "odd-1.dist-info", head=HEAD + "  and more\n\nprose\n")],
    "a summary after a text with an empty line": lambda at: [
        put(at, "odd-1.dist-info", head="Description: one\n  \n  two\n" + HEAD)
    ],
    "extras": lambda at: [put(at, "odd-1.dist-info", "[harness]\nodd = odd_module:part [one, two]\n")],
    "another line end": lambda at: [put(at, "odd-1.dist-info", "[harness]\vodd = odd_module\fmore = odd_module\n")],
    "a path that is no text": lambda at: [put(at / "a", "odd-1.dist-info").parent / "b", at / "a"],
}


@pytest.mark.parametrize("site", SITES)
def test_the_same_is_found_as_by_the_library(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, value, package, version and summary of each line are those that importlib.metadata says."""
    places = SITES[site](tmp_path)
    kept = places if "no text" in site else list(map(str, places))
    monkeypatch.setattr(sys, "path", [*kept, *sys.path])
    expected = {
        (one.name, one.value, one.dist.name, one.dist.version, one.dist.metadata["Summary"])
        for one in entry_points(group="harness")
        if one.dist is not None
    }
    found = {(one.name, one.value, one.distribution, one.version, one.summary) for one in announced("harness")}
    assert found == expected
    assert any(name == "odd" for name, *_ in found)
