"""The guard over the repository's root, in sessions of their own, with workers and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clean_root import left_behind

CLEAN = "def test_one(tmp_path):\n    (tmp_path / 'notes.txt').touch()\n"
UNTIDY = "from pathlib import Path\ndef test_two():\n    Path('summary.csv').touch()\n    Path('.coverage.7').touch()\n"


def _session(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "clean_root", *words]
    env = {**inherited, "PYTHONPATH": path}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_a_session_fails_whose_tests_leave_a_file_in_the_root(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The first session leaves nothing, the second one file, which the third finds there: it is a user's own then."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_clean.py").write_text(CLEAN, encoding="utf-8")
    (tmp_path / "own.txt").touch()
    assert (first := _session(tmp_path, *words)).returncode == 0, first.stdout + first.stderr
    (tmp_path / "tests" / "test_untidy.py").write_text(UNTIDY, encoding="utf-8")
    second = _session(tmp_path, *words)
    assert second.returncode == 1 and "summary.csv came to" in second.stdout and "2 passed" in second.stdout
    assert _session(tmp_path, *words).returncode == 0


def test_what_other_tools_write_is_not_blamed_on_tests() -> None:
    """Caches and the files of an editor come and go while tests run."""
    others = {".pytest_cache", ".mypy_cache", ".coverage", "__pycache__", ".README.md.swp", "README.md~", ".git"}
    assert left_behind({"README.md"}, {"README.md", "out.md", *others}) == ["out.md"]
