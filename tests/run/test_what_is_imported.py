"""What commands import before they need it: nothing large, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LARGE = ("torch", "transformers", "lm_eval", "datasets")
PROGRAM = f"""\
import sys
from harness.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(code, sorted(set({LARGE}) & set(sys.modules)), file=sys.stderr)
"""


def ended(*words: str, folder: Path) -> str:
    """Run a command, and return the last line of standard error: its exit status, and the large libraries it imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, cwd=folder, check=True
    )
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [["--help"], ["eval", "--help"], ["plugins"], ["tasks"]])
def test_what_only_lists_imports_no_large_library(words: list[str], tmp_path: Path) -> None:
    """From the command to the answer: help and lists are there at once."""
    assert ended(*words, folder=tmp_path) == "0 []"


@pytest.mark.parametrize("flags", [["--limit", "-1"], ["--include_path", "nowhere"], ["--plugin", "nobodys"]])
def test_mistakes_are_told_before_large_libraries_are_imported(flags: list[str], tmp_path: Path) -> None:
    """From the command to the sentence: what can be seen without torch and lm-eval is told without them."""
    assert ended("eval", "--tasks", "langgame_contains", *flags, folder=tmp_path) == "2 []"


def test_a_name_that_lm_eval_was_found_without_is_refused_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second command of a session: with lm-eval's names known, a typo costs no import of it."""
    from importlib.metadata import version

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    (tmp_path / f"lm-eval-names-{version('lm_eval')}.json").write_text('["arc_easy"]', encoding="utf-8")
    assert ended("eval", "--tasks", "arc_esy", folder=tmp_path) == "2 []"
