"""The check of a leaderboard's folder: what CI asks of a pull request, which may hold anything."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from board_records import baseline, doc_hash, record, sampled

from harness.board import kept_in_git, published
from harness.errors import HarnessError
from harness.records import ledger, repairing, shortening
from harness.verifying import checking


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A leaderboard with two records, their samples and their pages."""
    made = tmp_path / "board"
    inside = made / "records" / "samples"
    inside.mkdir(parents=True)
    records = []
    for make, scores in ((baseline, {0: 1.0, 1: 0.0}), (record, {0: 1.0, 1: 1.0})):
        samples = sampled(tmp_path, "samples_x.jsonl", scores)
        mean = sum(scores.values()) / 2
        text = (tmp_path / "samples_x.jsonl").read_bytes()
        (inside / f"{samples['sha256'][:16]}.jsonl.gz").write_bytes(gzip.compress(text, mtime=0))
        docs = {"docs_digest": _docs_digest(scores), "size": 2}
        metric = {"aggregation": "mean"}
        stderr = 0.5 if mean == 0.5 else 0.0
        records.append(
            make(mean, samples=samples, task=docs, metric=metric, counts={"docs": 2, "requests": 2}, stderr=stderr)
        )
    ledger.append(made / "records" / "p.jsonl", records)
    shortening.shorten(made / "records" / "p.jsonl")
    published.render(made)
    assert checking.check(made).problems == []
    return made


def _docs_digest(scores: dict[int, float]) -> str:
    """Return what a record says of these documents."""
    return hashlib.sha256("\n".join(map(doc_hash, scores)).encode()).hexdigest()[:16]


def lines(folder: Path) -> list[str]:
    return (folder / "records" / "p.jsonl").read_text(encoding="utf-8").splitlines()


def rewrite(folder: Path, new: list[str]) -> None:
    (folder / "records" / "p.jsonl").write_text("".join(line + "\n" for line in new), encoding="utf-8")


def edited(folder: Path) -> None:
    one, two = lines(folder)
    rewrite(folder, [one, json.dumps(json.loads(two) | {"value": 0.99})])


def repeated(folder: Path) -> None:
    ledger.append(folder / "records" / "q.jsonl", [ledger.read_file(folder / "records" / "p.jsonl").records[1]])


def bomb(folder: Path) -> None:
    (folder / "records" / "samples" / f"{'0' * 16}.jsonl.gz").write_bytes(gzip.compress(b"x\n" * 5_000_000))


def symlink(folder: Path) -> None:
    (folder / "records" / "z.jsonl").symlink_to("/etc/passwd")


def file(name: str, content: str = "x\n") -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    return put


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (file("README.md"), "README.md: not what the records give"),
        (file("pages/p.html"), "pages/p.html: not what the records give"),
        (file("pages/q.html"), "pages/q.html: no record gives it"),
        (file("pages/q.js"), "pages/q.js: no such file belongs"),
        (lambda folder: (folder / "pages" / "p.html").unlink(), "pages/p.html: it is missing"),
        (file("records/reports/x.json"), "records/reports/x.json: no such file belongs"),
        (file("records/reports/" + "0" * 16 + ".json", "{}"), "0000.json: it is not what its name says"),
        (file("records/commands/" + "0" * 16 + ".json", "x" * 5_000_001), "0000.json: 5 MB, more than 5"),
        (lambda folder: shutil.rmtree(folder / "records" / "commands"), "is not beside this file"),
        (lambda folder: (folder / "index.html").unlink(), "index.html: it is missing"),
        (file("records/__init__.py"), "records/__init__.py: no such file belongs"),
        (file(".github/workflows/x.yml"), ".github: no such file belongs"),
        (file("records/deeper/x.jsonl"), "records/deeper: no such file belongs"),
        (file("records/x.jsonl.torn.py"), "records/x.jsonl.torn.py: no such file belongs"),
        (file("records/withdrawn/" + "0" * 16 + ".json", "{}"), "0000.json: no withdrawal: 0000000000000000.json is not"),
        (file("README.md", "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> x\n"), "README.md: git left a conflict in it; `harness"),
        (file("records/half.jsonl", "=======\n"), "records/half.jsonl, line 1: git left a conflict here; `harness leaderboard "),
        (lambda folder: rewrite(folder, [*lines(folder), lines(folder)[1]]), "line 3: the same record as line 2 (key "),
        (file("records/samples/x.jsonl.gz"), "records/samples/x.jsonl.gz: no such file belongs"),
        (file("records/.p.jsonl.lock"), "records/.p.jsonl.lock: a lock file with content"),
        (symlink, "records/z.jsonl: a symbolic link"),
        (file("records/long.jsonl", "x" * 5_000_001), "records/long.jsonl: a line of more than 5 MB"),
        (file("records/bad.jsonl", "broken\n"), "bad.jsonl, line 1: "),
        (file("records/samples/" + "0" * 16 + ".jsonl.gz"), "0000.jsonl.gz: cannot be read"),
        (edited, "line 2: its content does not give its digest"),
        (lambda folder: rewrite(folder, lines(folder)[1:]), "lines before it were removed"),
        (lambda folder: rewrite(folder, lines(folder)[::-1]), "line 1: "),
        (repeated, "q.jsonl: a copy: 1 record of it stands in records/p.jsonl already; remove records/q.jsonl"),
        (lambda folder: next((folder / "records" / "samples").iterdir()).unlink(), "its samples are not here"),
    ],
)  # fmt: skip
def test_each_thing_that_is_not_in_order_is_named(folder: Path, change: Callable[[Path], None], said: str) -> None:
    change(folder)
    problems = checking.check(folder).problems
    assert any(said in problem for problem in problems), problems


def test_what_is_too_large_is_named_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MOST_SAMPLE_BYTES", 1_000_000)
    bomb(folder)
    [problem] = checking.check(folder).problems
    assert problem == "records/samples/0000000000000000.jsonl.gz: it expands to more than 0.001 GB"
    monkeypatch.setattr(checking, "MOST_FILE_BYTES", 100)
    assert any("more than 0" in problem for problem in checking.check(folder).problems)


def test_nothing_of_the_folder_is_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("records/__init__.py", "conftest.py", "records/p.py", "setup.py"):
        file(name, f"open({str(canary)!r}, 'w').close()\n")(folder)
    assert len(checking.check(folder).problems) == 4
    assert not canary.exists()


def test_a_folder_without_records_is_none_of_a_leaderboard(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="is no leaderboard's folder: it has no folder 'records'"):
        checking.check(tmp_path)
    with pytest.raises(HarnessError, match="is no leaderboard's folder"):
        published.render(tmp_path)


@pytest.fixture
def earlier(folder: Path, tmp_path: Path) -> Path:
    """The board as it was before a request."""
    return Path(shutil.copytree(folder, tmp_path / "before"))


def _checked(folder: Path, earlier: Path) -> tuple[list[str], list[str]]:
    published.render(folder)
    checked = checking.check(folder, earlier)
    return checked.problems, checked.warnings


def test_a_copied_ledger_names_both_and_blames_what_was_added(folder: Path, earlier: Path) -> None:
    """Also where the copy comes first by its name; without an earlier copy the order of names is all there is."""
    shutil.copy(folder / "records" / "p.jsonl", folder / "records" / "a.jsonl")
    said = "records/a.jsonl: a copy: 2 records of it all stand in records/p.jsonl already; remove records/a.jsonl"
    assert _checked(folder, earlier)[0] == [said]


def test_a_measurement_made_twice_names_both_values_and_the_cure(folder: Path, earlier: Path) -> None:
    """Two who measured the same thing with two results: the one that was added has to go, or one is withdrawn."""
    again = json.loads(lines(folder)[1])
    old = ledger.read_file(folder / "records" / "p.jsonl").records[1]
    changed = old.model_copy(update={"created": "2030-01-01T00:00:00Z"})
    ledger.append(folder / "records" / "a.jsonl", [changed])
    [problem] = _checked(folder, earlier)[0]
    assert problem.startswith(
        f"records/a.jsonl, line 1: the same measurement (key {again['key']}) stands in records/p.jsonl"
    )
    assert "(1 here, 1 there); remove records/a.jsonl and publish again" in problem


def test_an_untouched_model_measured_by_two_is_no_problem(folder: Path, earlier: Path) -> None:
    """Every submission brings its own; those that agree are one."""
    old = ledger.read_file(folder / "records" / "p.jsonl").records[0]
    assert old.is_baseline
    ledger.append(folder / "records" / "a.jsonl", [old.model_copy(update={"created": "2020-01-01T00:00:00Z"})])
    assert _checked(folder, earlier)[0] == []


def test_an_untouched_model_that_was_replaced_by_an_equal_one_is_a_warning(folder: Path, earlier: Path) -> None:
    """As a conflict that was brought together leaves it; with another value it is gone."""
    old, ours = ledger.read_file(folder / "records" / "p.jsonl").records
    for value, is_problem in ((old.value, False), (0.9, True)):
        (folder / "records" / "p.jsonl").unlink()
        again = old.model_copy(update={"created": "2020-01-01T00:00:00Z", "value": value})
        ledger.append(folder / "records" / "p.jsonl", [again, ours])
        problems, warnings = _checked(folder, earlier)
        assert (
            any("records/p.jsonl: 1 record that stood there (line 1) is gone" in said for said in problems)
            == is_problem
        )
        told = "records/p.jsonl: 1 record of the untouched model went, and others with the same value stand"
        assert (told in warnings) != is_problem


def test_a_renamed_ledger_is_a_warning_and_a_lost_record_a_problem(folder: Path, earlier: Path) -> None:
    """What counts is that every record stands, not in which file."""
    (folder / "records" / "p.jsonl").rename(folder / "records" / "q.jsonl")
    problems, warnings = _checked(folder, earlier)
    assert problems == [] and "records/q.jsonl: 2 records stood in records/p.jsonl before" in warnings
    (folder / "records" / "q.jsonl").unlink()
    assert any(
        "records/p.jsonl: 2 records that stood there (line 1 and 1 more) are gone" in said
        for said in _checked(folder, earlier)[0]
    )


def test_a_chain_that_was_made_anew_is_told_and_its_records_are_all_there(folder: Path, earlier: Path) -> None:
    """As a merge with the other side first leaves it."""
    rewrite(folder, lines(folder)[::-1])
    assert any("does not" in problem for problem in checking.check(folder).problems)
    assert repairing.repair(folder / "records" / "p.jsonl", renew_chain=True).kept == 2
    problems, warnings = _checked(folder, earlier)
    assert problems == []
    assert "records/p.jsonl: its chain was made anew, or lines of it were" in warnings
    assert any(".backup-" in warning and "set aside by --repair" in warning for warning in warnings)


def test_what_was_wrong_before_is_not_the_fault_of_a_request(folder: Path, earlier: Path) -> None:
    """It is told as a warning, so that somebody mends it."""
    for board in (folder, earlier):
        (board / "records" / "notes.txt").write_text("x\n", encoding="utf-8")
    checked = checking.check(folder, earlier)
    assert checked.problems == []
    assert "records/notes.txt: no such file belongs into a leaderboard's folder (it was so before)" in checked.warnings


def test_pages_that_git_leaves_out_are_not_asked_for(folder: Path) -> None:
    """A workflow renders them from what was merged."""
    shutil.rmtree(folder / "pages")
    (folder / "index.html").unlink()
    assert checking.check(folder).problems
    for name, text in kept_in_git.settings(folder).items():
        (folder / name).write_text(text, encoding="utf-8")
    assert checking.check(folder).problems == []


def test_a_board_that_has_pages_goes_on_keeping_them(folder: Path) -> None:
    """Settings for git that come later do not take them out of the check."""
    assert "index.html" not in kept_in_git.settings(folder)[".gitignore"]
    assert "index.html" in kept_in_git.settings(folder / "none")[".gitignore"]
