"""Two people with clones of one board publish at once, and end with both, in whatever order and way git merges them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.cli import main
from harness.records import ledger
from harness.verifying import checking

BOARD = "leaderboards"
ORDERS = pytest.mark.parametrize("first", ["ada", "bob"])
WAYS = pytest.mark.parametrize("way", ["merge", "rebase"])
WHO = {
    "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@example.org", "GIT_COMMITTER_NAME": "x",
    "GIT_COMMITTER_EMAIL": "x@example.org", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_EDITOR": "true",
}  # fmt: skip


def git(folder: Path, *words: str, fails: bool = False) -> str:
    """Run git in ``folder`` and return what it printed."""
    done = subprocess.run(
        ["git", *words], cwd=folder, env=os.environ | WHO, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout


class Person:
    """One of the two, with a clone and a run of their own."""

    def __init__(self, name: str, hub: Path, results: Path) -> None:
        self.folder, self.results = hub.parent / name, results
        git(hub.parent, "clone", "--quiet", str(hub), name)
        self.board = self.folder / BOARD

    def publish(self, *flags: str) -> None:
        """Publish the run into the clone and commit what git takes of it."""
        assert main(["publish", str(self.results), "--to", str(self.board), *flags]) == 0
        self.commit()

    def commit(self) -> None:
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--message", "a submission")

    def push(self) -> None:
        git(self.folder, "push", "--quiet", "origin", "HEAD:main")

    def pull(self, way: str, *, conflicts: bool = False) -> None:
        """Take in what the other pushed."""
        git(self.folder, "fetch", "--quiet")
        git(self.folder, *(["merge", "--no-edit"] if way == "merge" else ["rebase"]), "origin/main", fails=conflicts)

    def goes_on(self, way: str) -> None:
        """End a merge whose conflict was cured."""
        git(self.folder, "add", "--all")
        git(self.folder, *(["commit", "--no-edit"] if way == "merge" else ["rebase", "--continue"]))

    def digests(self) -> set[str]:
        return {record.digest() for record in ledger.read(self.board).records}


@pytest.fixture
def people(results: Path, other_results: Path, tmp_path: Path) -> dict[str, Person]:
    """Ada and Bob, who ran the same method with two seeds, each with the untouched model, and cloned one repository."""
    if shutil.which("git") is None:
        pytest.fail("git is needed for this test")
    hub = tmp_path / "hub.git"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", str(hub))
    git(tmp_path, "clone", "--quiet", str(hub), "start")
    (tmp_path / "start" / "LICENSE").write_text("none\n", encoding="utf-8")
    git(tmp_path / "start", "checkout", "--quiet", "-b", "main")
    git(tmp_path / "start", "add", "--all")
    git(tmp_path / "start", "commit", "--quiet", "--message", "the repository")
    git(tmp_path / "start", "push", "--quiet", "origin", "main")
    return {"ada": Person("ada", hub, results), "bob": Person("bob", hub, other_results)}


def _in_order(board: Path, before: Path | None = None) -> None:
    assert checking.check(board, before).problems == []


def _copy_of_main(person: Person) -> Path:
    """Return a board as the main branch has it, beside the clone."""
    git(person.folder, "worktree", "add", "--quiet", "--detach", str(person.folder.parent / "main"), "origin/main")
    return person.folder.parent / "main" / BOARD


@ORDERS
@WAYS
def test_both_submissions_stand_in_any_order(first: str, way: str, people: dict[str, Person]) -> None:
    """Nothing conflicts: each has a ledger of its own, and pages and locks are not in git."""
    one, two = people[first], people["bob" if first == "ada" else "ada"]
    for person in people.values():
        person.publish()
        kept = git(person.folder, "ls-files").split()
        assert not [name for name in kept if name.endswith((".html", ".md", ".lock"))]
    digests = one.digests() | two.digests()
    assert len(digests) == 8
    one.push()
    two.pull(way)
    assert two.digests() == digests
    _in_order(two.board, _copy_of_main(two))
    two.push()
    one.pull(way)
    assert one.digests() == digests
    assert main(["leaderboard", str(one.board), "--render"]) == 0
    _in_order(one.board)


def test_in_a_repository_the_next_step_is_said(people: dict[str, Person], capsys: pytest.CaptureFixture[str]) -> None:
    """Once records were added."""
    ada = people["ada"]
    for times in (1, 0):
        capsys.readouterr()
        assert main(["publish", str(ada.results), "--to", str(ada.board)]) == 0
        assert capsys.readouterr().out.count(f"for a pull request: git add {ada.board}") == times


@ORDERS
@WAYS
def test_a_ledger_that_both_added_to_keeps_both_sides(
    first: str, way: str, people: dict[str, Person], capsys: pytest.CaptureFixture[str]
) -> None:
    """A conflict in a ledger is called by its name, one command cures it, and the check finds nothing after it."""
    one, two = people[first], people["bob" if first == "ada" else "ada"]
    for person in people.values():
        person.publish("--name", "team")
    one.push()
    two.pull(way, conflicts=True)
    capsys.readouterr()
    assert main(["leaderboard", str(two.board), "--check"]) == 1
    [said] = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert "records/team.jsonl, lines 1 to 11: git left a conflict here; `harness leaderboard " in said
    assert main(["publish", str(two.results), "--to", str(two.board)]) == 2, "nothing is added to half a merge"
    capsys.readouterr()
    assert main(["leaderboard", str(two.board), "--repair"]) == 0
    assert "6 lines kept, of both sides of git's conflict, 2 that stood twice left out" in capsys.readouterr().out
    _in_order(two.board, _copy_of_main(two))
    two.goes_on(way)
    assert not [name for name in git(two.folder, "ls-files").split() if ".backup" in name or ".torn" in name]
    two.push()
    one.pull(way)
    keys = [record.key() for record in ledger.read(one.board).records]
    wanted = {record.key() for person in people.values() for record in ledger.read(person.results).records}
    assert sorted(keys) == sorted(wanted), "each measurement once, none lost"
    _in_order(one.board)


@WAYS
def test_pages_that_are_kept_in_git_are_rendered_anew(way: str, people: dict[str, Person]) -> None:
    """A board that commits its pages has conflicts in them, and rendering is the cure."""
    ada, bob = people.values()
    for person in people.values():
        person.board.mkdir()
        (person.board / ".gitignore").write_text(".*.lock\n", encoding="utf-8")
        person.publish()
    ada.push()
    bob.pull(way, conflicts=True)
    assert any("git left a conflict in it; `harness" in problem for problem in checking.check(bob.board).problems)
    assert main(["leaderboard", str(bob.board), "--render"]) == 0
    _in_order(bob.board)
    bob.goes_on(way)
    assert len(bob.digests()) == 8


def test_a_merge_that_kept_both_without_asking_breaks_the_chain_and_is_mended(
    people: dict[str, Person], capsys: pytest.CaptureFixture[str]
) -> None:
    """Git's union merge and hands leave no marks; the chain is made anew only by those who say so."""
    ada, bob = people.values()
    for person in people.values():
        person.publish("--name", "team")
        (person.board / ".gitattributes").write_text("*.jsonl merge=union\n", encoding="utf-8")
        person.commit()
    ada.push()
    bob.pull("merge")
    assert any("does not follow" in problem for problem in checking.check(bob.board).problems)
    before = (bob.board / "records" / "team.jsonl").read_bytes()
    capsys.readouterr()
    assert main(["leaderboard", str(bob.board), "--repair"]) == 1
    assert "`--repair --renew-chain` makes the chain anew" in capsys.readouterr().err
    assert (bob.board / "records" / "team.jsonl").read_bytes() == before
    assert main(["leaderboard", str(bob.board), "--repair", "--renew-chain"]) == 0
    _in_order(bob.board, _copy_of_main(bob))


def test_another_end_of_line_is_kept_out_of_files_that_are_named_by_their_content(
    people: dict[str, Person], tmp_path: Path
) -> None:
    """A clone that turns ends of line into those of Windows reads the same board."""
    people["ada"].publish()
    people["ada"].push()
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "--quiet", "hub.git", "elsewhere")
    _in_order(tmp_path / "elsewhere" / BOARD)


def test_the_same_results_published_by_both_are_one_ledger(people: dict[str, Person], results: Path) -> None:
    """The name of a ledger follows from what it holds, so git finds nothing to merge."""
    ada, bob = people.values()
    bob.results = results
    for person in people.values():
        person.publish()
    ada.push()
    bob.pull("merge")
    assert len(ledger.record_files(bob.board / "records")) == 1
    _in_order(bob.board)
