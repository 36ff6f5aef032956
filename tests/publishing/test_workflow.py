"""The workflow that checks submissions cannot be turned against the repository it protects."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.board import kept_in_git

FILE = Path(__file__).parents[2] / "docs" / "leaderboard-check.yml"
TEXT = FILE.read_text(encoding="utf-8")
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["check"]["steps"]
PAGES: dict[Any, Any] = yaml.safe_load((FILE.parent / "leaderboard-pages.yml").read_text(encoding="utf-8"))
IGNORED = "Nothing is added that git ignores"
CHECK = "Check the board, and that every record of the target branch stands"
# Files a hostile pull request may bring, and what an honest one does.
HOSTILE = [
    ".github/workflows/evil.yml",
    "setup.py",
    "conftest.py",
    "leaderboards/__init__.py",
    "leaderboards/records/__init__.py",
    "leaderboards/records/samples/x.jsonl.gz",
    "leaderboards/records/reports/x.json",
    "leaderboards/records/reports/0123456789abcdef.json.py",
    "leaderboards/records/reports/deep/0123456789abcdef.json",
    "leaderboards/records/elsewhere/0123456789abcdef.json",
    "leaderboards/pages/x.py",
    "leaderboards/pages/deep/x.html",
    "leaderboards/x.html",
    "leaderboards/records/../../x.jsonl",
    "leaderboards/records/deep/x.jsonl",
    "harness/verifying/verify.py",
    "leaderboards/index.html.py",
    "leaderboards/.gitignore",
    "leaderboards/.gitattributes",
    "leaderboards/records/withdrawn/x.json",
]
HONEST = [
    "leaderboards/README.md",
    "leaderboards/index.html",
    "leaderboards/records/stochastok.jsonl",
    "leaderboards/records/samples/0123456789abcdef.jsonl.gz",
    "leaderboards/records/reports/0123456789abcdef.json",
    "leaderboards/records/commands/0123456789abcdef.json",
    "leaderboards/records/withdrawn/0123456789abcdef.json",
    "leaderboards/pages/stochastok.html",
    "leaderboards/pages/My_plugin-0123456789.html",
]


def test_it_runs_on_pull_requests_without_the_rights_of_the_target() -> None:
    triggers = WORKFLOW[True]  # YAML reads the key `on` so
    assert set(triggers) == {"pull_request"}, "pull_request_target would give a stranger's files our secrets"
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in WORKFLOW["jobs"]["check"]
    assert "secrets." not in TEXT and "GITHUB_TOKEN" not in TEXT
    assert WORKFLOW["jobs"]["check"]["timeout-minutes"] <= 15


def test_the_checkouts_keep_no_login_and_the_code_is_that_of_the_target() -> None:
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["path"] for step in checkouts] == ["trusted", "submitted"]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert checkouts[0]["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


def test_nothing_of_the_request_is_installed_imported_or_run() -> None:
    for step in STEPS:
        command = step.get("run", "")
        assert not re.search(r"\b(python|pytest|make|pip|bash|sh|source)\b.*submitted", command)
        assert not re.search(r"\$\{\{[^}]*(head|title|body|label|ref_name|actor)", command), (
            "text of a stranger in a shell"
        )
        if step.get("working-directory") == "submitted":
            assert "harness" not in command and "python" not in command, "Python would import from the folder it is in"
    [install] = [step["run"] for step in STEPS if "pip install" in step.get("run", "")]
    assert install == "pip install --constraint trusted/constraints.txt ./trusted"
    assert (FILE.parents[1] / "constraints.txt").is_file()


def test_every_action_is_one_of_the_host_s_own_at_one_commit() -> None:
    """A tag can be moved to other code, a commit cannot."""
    jobs = [WORKFLOW["jobs"]["check"], *PAGES["jobs"].values()]
    used = {step["uses"] for job in jobs for step in job["steps"] if "uses" in step}
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", use) for use in used)
    assert {use.split("@")[0].removeprefix("actions/") for use in used} == {
        "checkout", "setup-python", "upload-artifact", "download-artifact",
    }  # fmt: skip


def test_the_job_that_may_write_runs_nothing_but_git() -> None:
    """Pages are made of what was merged, by a job that may only read."""
    assert PAGES["permissions"] == {"contents": "read"} and "permissions" not in PAGES["jobs"]["render"]
    assert set(PAGES[True]) == {"push"}
    publish = PAGES["jobs"]["publish"]
    assert publish["permissions"] == {"contents": "write"}
    [command] = [step["run"] for step in publish["steps"] if "run" in step]
    words = {line.split()[0] for line in command.splitlines()}
    assert words == {"git", "login=$(printf"}


@pytest.mark.parametrize("runs", ["[bs]*-*", "baseline-*"])
def test_the_pages_are_rendered_from_what_was_merged(runs: str, made_results: Path, tmp_path: Path) -> None:
    """The step as it stands; a board of untouched models alone has pages, too."""
    [command] = [step["run"] for step in PAGES["jobs"]["render"]["steps"] if step.get("name") == "Render"]
    command = command.replace("harness leaderboard", f"{shlex.quote(sys.executable)} -m harness.cli leaderboard")
    results, place = tmp_path / "results", tmp_path / "temp"
    for run in made_results.glob(runs):
        shutil.copytree(run, results / run.name)
    board = tmp_path / "leaderboards"
    publish = [sys.executable, "-m", "harness.cli", "publish", str(results), "--to", str(board)]
    subprocess.run(publish, check=True, capture_output=True)
    shutil.rmtree(board / "pages", ignore_errors=True)
    place.mkdir()
    environment = os.environ | {"GITHUB_WORKSPACE": str(tmp_path), "PYTHONPATH": str(FILE.parents[1])}
    subprocess.run(["bash", "-e", "-c", command], cwd=place, check=True, env=environment, capture_output=True)
    assert {"README.md", "index.html", "pages"} == {path.name for path in (place / "made").iterdir()}


def test_the_pages_come_to_a_branch_of_their_own(tmp_path: Path) -> None:
    """The step is run as it stands, against a repository on disk, twice."""
    hub = tmp_path / "hub.git"
    hub.mkdir()
    _git(hub, "init", "--quiet", "--bare")
    [command] = [step["run"] for step in PAGES["jobs"]["publish"]["steps"] if "run" in step]
    for number in (1, 2):
        made = tmp_path / f"made{number}"
        (made / "pages").mkdir(parents=True)
        (made / "index.html").write_text(f"board {number}", encoding="utf-8")
        environment = os.environ | {"REMOTE": str(hub), "TOKEN": "x", "GITHUB_SHA": str(number), "HOME": str(tmp_path)}
        subprocess.run(["bash", "-e", "-c", command], cwd=made, check=True, env=environment)
    shown = subprocess.run(
        ["git", "show", "leaderboard-pages:index.html"], cwd=hub, check=True, capture_output=True, text=True
    )
    assert shown.stdout == "board 2"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a board of one record file, the request's merge still to come."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "submitted"
    (folder / "leaderboards" / "records").mkdir(parents=True)
    (folder / "leaderboards" / "records" / "stochastok.jsonl").write_text('{"a": 1}\n{"b": 2}\n', encoding="utf-8")
    _git(folder, "init", "--quiet")
    _commit(folder)
    return folder


def _git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def _commit(folder: Path) -> None:
    _git(folder, "add", "--all", "--force")
    _git(folder, "commit", "--quiet", "--message", "x")


def _step(folder: Path, name: str) -> int:
    [command] = [step["run"] for step in STEPS if step.get("name") == name]
    environment = {"RUNNER_TEMP": str(folder.parent), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    return subprocess.run(["bash", "-e", "-c", command], cwd=folder, check=False, env=environment).returncode


@pytest.mark.parametrize("path", HOSTILE)
def test_a_file_that_is_no_part_of_a_board_stops_it(path: str, repository: Path) -> None:
    target = repository / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("x\n", encoding="utf-8")
    _commit(repository)
    assert _step(repository, "Nothing but the board is changed") != 0


@pytest.mark.parametrize("path", HONEST)
def test_the_files_of_a_board_pass(path: str, repository: Path) -> None:
    target = repository / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a", encoding="utf-8") as file:
        file.write("x\n")
    _commit(repository)
    assert _step(repository, "Nothing but the board is changed") == 0
    assert _step(repository, IGNORED) == 0


@pytest.mark.parametrize("name", ["index.html", "pages/x.html", "records/.x.jsonl.lock", "records/x.jsonl.torn"])
def test_a_file_that_git_ignores_stops_it_when_it_is_forced_in(name: str, repository: Path) -> None:
    """Nobody checks pages that a workflow renders, so none may come with a request."""
    board = repository / "leaderboards"
    for setting, content in kept_in_git.settings(board).items():
        (board / setting).write_text(content, encoding="utf-8")
    _commit(repository)
    assert _step(repository, IGNORED) == 0
    (board / name).parent.mkdir(exist_ok=True)
    (board / name).write_text("x\n", encoding="utf-8")
    _commit(repository)
    assert _step(repository, IGNORED) != 0


def test_a_record_that_is_edited_or_removed_stops_it(made_results: Path, tmp_path: Path) -> None:
    """The last step as it stands, with the harness of this environment."""
    [command] = [step["run"] for step in STEPS if step.get("name") == CHECK]
    harness = [sys.executable, "-m", "harness.cli"]
    trusted, submitted = tmp_path / "trusted", tmp_path / "submitted"
    for folder in (trusted, submitted):
        subprocess.run([*harness, "publish", str(made_results), "--to", str(folder / "leaderboards")], check=True)
    command = command.replace("harness leaderboard", f"{shlex.quote(sys.executable)} -m harness.cli leaderboard")

    def run() -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"GITHUB_WORKSPACE": str(tmp_path), "PYTHONPATH": str(FILE.parents[1])}
        return subprocess.run(
            ["bash", "-e", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert run().returncode == 0
    [ledger] = (submitted / "leaderboards" / "records").glob("*.jsonl")
    ledger.write_text("".join(ledger.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    done = run()
    assert done.returncode == 1 and "1 record that stood there (line 4) is gone or changed" in done.stderr
