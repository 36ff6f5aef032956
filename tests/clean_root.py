"""A suite that leaves a file in the repository's root has failed, and says which."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

import pytest

# What tools, editors and file managers put there while tests run.
NOT_OURS = (".git*", ".*_cache", ".coverage*", ".hypothesis", "__pycache__", ".DS_Store", "*~", ".*.sw?", ".#*", "#*#")
_BEFORE = pytest.StashKey[set[str]]()
_LEFT = pytest.StashKey[list[str]]()


def left_behind(before: set[str], after: set[str]) -> list[str]:
    """Return the names that are new, without those of other tools, sorted."""
    return sorted(name for name in after - before if not any(fnmatch(name, pattern) for pattern in NOT_OURS))


def _names(root: Path) -> set[str]:
    return set(os.listdir(root))


def _is_worker(config: pytest.Config) -> bool:
    # Files that another worker is about to remove are none that are left: the process that started all looks at the end.
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what lies in the root before the first test."""
    if not _is_worker(session.config):
        session.config.stash[_BEFORE] = _names(session.config.rootpath)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the session fail where the tests left something in the root."""
    config = session.config
    if not _is_worker(config):
        config.stash[_LEFT] = left_behind(config.stash[_BEFORE], _names(config.rootpath))
        if config.stash[_LEFT] and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left, and what to do."""
    if left := config.stash.get(_LEFT, []):
        terminalreporter.section("files left behind", red=True)
        terminalreporter.line(
            f"while the tests ran, {', '.join(left)} came to {config.rootpath}: a test that writes where it stands uses the "
            "fixture 'fresh' or tmp_path; remove it, and find the test by running its folder alone"
        )
