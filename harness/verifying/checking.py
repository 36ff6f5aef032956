"""Is a leaderboard's folder in order? What CI asks of a pull request that adds records, which it only reads as data."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.board import kept_in_git, published, settings
from harness.errors import HarnessError
from harness.names import printable
from harness.records import beside, conflicts, ledger, samples, withdrawals
from harness.records.ledger import Reading
from harness.records.samples import BLOCK, MOST_LINE_BYTES, MOST_SAMPLE_BYTES
from harness.verifying import doubles, verify
from harness.verifying import since as earlier

MOST_FILE_BYTES = 100_000_000
SAMPLE_NAME = re.compile(r"[0-9a-f]{16}\.jsonl\.gz")
PAGE_NAME = re.compile(r"[A-Za-z0-9._-]{1,105}\.html")
LEDGER_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.jsonl")
# The harness's own, empty, and in no commit.
LOCK_NAME = re.compile(r"\..*\.lock")


@dataclass(frozen=True, slots=True)
class Checked:
    """How much was looked at, a sentence for each thing that is wrong, and for each that a person should judge."""

    files: int
    records: int
    problems: list[str]
    warnings: list[str]


def check(folder: Path, since: Path | None = None) -> Checked:
    """Look at everything in a leaderboard's folder: kinds and sizes of files, records, chain, samples, pages.

    Files that are too large or are no plain files are named and nothing is read then.

    Args:
        since: an earlier copy of the folder, such as the branch that a request wants to be merged into. All its records have to
            stand, what is doubled is what was added, and what was wrong before is no problem but a warning.

    Raises:
        HarnessError: the folder has no records folder.
    """
    found = _check(folder, since)
    if since is not None and found.problems and (since / published.RECORDS).is_dir():
        before = set(_check(since, None).problems)
        found.warnings.extend(f"{problem} (it was so before)" for problem in found.problems if problem in before)
        found.problems[:] = [problem for problem in found.problems if problem not in before]
    return found


def _check(folder: Path, since: Path | None) -> Checked:
    root = published.records_folder(folder)
    warnings = _left_over(root)
    problems = [*_strangers(folder), *_too_large(root), *_own_words(folder)]
    files = [path for path in ledger.record_files(root) if not path.is_symlink()]
    if problems:
        return Checked(len(files), 0, problems, warnings)
    reading = ledger.read(root, with_foreign=False)
    torn = _conflicts(reading, folder)
    problems += torn.values()
    for problem in reading.bad:
        if problem.origin.file in torn:
            continue
        line = f", line {problem.origin.line}" if problem.origin.line else ""
        problems.append(f"{_place(problem.origin.file, folder)}{line}: {problem.sentence}")
    problems += _compared(reading, folder, since, warnings, torn)
    report = verify.examine(reading, root, tells_doubles=False)
    found: dict[str, list[str]] = {"error": problems, "warning": warnings}
    told = set(problems)
    for finding in report.findings:
        place = _place(finding.file, folder) + (f", line {finding.line}" if finding.line else "")
        if finding.file not in torn and (sentence := f"{place}: {finding.sentence}") not in told:
            found[finding.severity].append(sentence)
    problems += _damaged(root)
    problems += _old_pages(folder)
    return Checked(len(files), len(reading.records), problems, warnings)


def _conflicts(reading: Reading, folder: Path) -> dict[Path, str]:
    """Return a sentence for each ledger in which git left both sides of a conflict: what else is wrong there comes of that."""
    lines: dict[Path, list[int]] = {}
    for problem in reading.bad:
        if problem.sentence.startswith(conflicts.SAID):
            lines.setdefault(problem.origin.file, []).append(problem.origin.line)
    return {
        file: f"{_place(file, folder)}, {f'lines {found[0]} to {found[-1]}' if len(found) > 1 else f'line {found[0]}'}: "
        f"{conflicts.SAID}; {conflicts.cure(file)}"
        for file, found in lines.items()
    }


def _without(reading: Reading, files: Collection[Path]) -> Reading:
    """Return a reading in which no record of these files is told to stand twice."""
    kept = [n for n, origin in enumerate(reading.origins) if origin.file not in files]
    return replace(reading, records=[reading.records[n] for n in kept], origins=[reading.origins[n] for n in kept])


def _compared(
    reading: Reading, folder: Path, since: Path | None, warnings: list[str], torn: Collection[Path]
) -> list[str]:
    """Return what stands twice and, with an earlier copy, what that lost; what a person should look at goes to ``warnings``."""
    root = folder / published.RECORDS
    whole = _without(reading, torn)
    if since is None:
        return list(doubles.problems(whole, lambda file: _place(file, folder)))
    before = earlier.read(since / published.RECORDS)
    changes = earlier.compare(before, reading, root)
    warnings += changes.warnings

    def is_old(number: int) -> bool:
        return before.is_in(root, whole.origins[number].file, whole.records[number].digest())

    return [*changes.problems, *doubles.problems(whole, lambda file: _place(file, folder), is_old)]


def _left_over(root: Path) -> list[str]:
    """Return a sentence for each file that a repair or a killed writer left, which git ignores."""
    return [
        f"{_place(path, root.parent)}: set aside by --repair or a killed writer; look at it, then remove it"
        for path in sorted(root.glob("*.jsonl.*"))
        if kept_in_git.SET_ASIDE.fullmatch(path.name)
    ]


def _strangers(folder: Path) -> Iterator[str]:
    """Yield a sentence for each file that has no business in a leaderboard's folder."""
    for parent, folders, files in os.walk(folder):
        for name in sorted([*folders, *files]):
            path = Path(parent) / name
            place = path.relative_to(folder)
            if path.is_symlink():
                yield f"{printable(place)}: a symbolic link; only plain files belong here"
            elif not (path.is_dir() or path.is_file()):
                yield f"{printable(place)}: no plain file"
            elif not _belongs(place, is_folder=path.is_dir()):
                yield f"{printable(place)}: no such file belongs into a leaderboard's folder"
            elif LOCK_NAME.fullmatch(name) and path.stat().st_size:
                yield f"{printable(place)}: a lock file with content"
        folders.sort()


def _belongs(place: Path, *, is_folder: bool) -> bool:
    records = published.RECORDS
    names: dict[tuple[str, ...], list[re.Pattern[str]]] = {
        (published.PAGES,): [PAGE_NAME],
        (records,): [LEDGER_NAME, LOCK_NAME, kept_in_git.SET_ASIDE],
        (records, samples.PUBLISHED_FOLDER): [SAMPLE_NAME],
    }
    names |= {(records, folder): [beside.FILE_NAME] for folder in (*beside.FOLDERS, withdrawals.FOLDER)}
    if is_folder:
        return place.parts in names
    if len(place.parts) == 1:
        own = {published.MARKDOWN, published.HTML, settings.FILE, kept_in_git.IGNORE, kept_in_git.ATTRIBUTES}
        return place.name in own
    return any(name.fullmatch(place.name) for name in names.get(place.parts[:-1], []))


def _own_words(folder: Path) -> Iterator[str]:
    """Yield a sentence where the board's own words cannot be read."""
    try:
        settings.read(folder)
    except HarnessError as error:
        yield str(error)


def _too_large(root: Path) -> Iterator[str]:
    """Yield a sentence for each file or line that is larger than allowed; sample files count as they expand."""
    for path in sorted([*root.rglob("*.jsonl*"), *root.rglob("*.json")]):
        if path.is_symlink() or not path.is_file():
            continue
        place = _place(path, root.parent)
        size = path.stat().st_size
        most = MOST_LINE_BYTES if path.suffix == ".json" else MOST_FILE_BYTES
        if size > most:
            yield f"{place}: {size / 1e6:.0f} MB, more than {most / 1e6:.0f}"
            continue
        try:
            yield from (f"{place}: {sentence}" for sentence in _too_long(path))
        except (OSError, EOFError, zlib.error) as error:
            yield f"{place}: cannot be read ({printable(error)[:200]})"


def _too_long(path: Path) -> Iterator[str]:
    """Yield what is too long in a file, read in blocks: a line of a gigabyte is never in memory."""
    line = total = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(BLOCK):
            total += len(block)
            first, *others = block.split(b"\n")
            longest = max(line + len(first), *map(len, others), 0)
            line = len(others[-1]) if others else line + len(first)
            if longest > MOST_LINE_BYTES:
                yield f"a line of more than {MOST_LINE_BYTES / 1e6:.0f} MB"
                return
            if total > MOST_SAMPLE_BYTES:
                yield f"it expands to more than {MOST_SAMPLE_BYTES / 1e9:g} GB"
                return


def _damaged(root: Path) -> Iterator[str]:
    """Yield a sentence for each file beside the ledgers that is not what its name says, whether a record names it or not."""
    for folder in beside.FOLDERS:
        for path in sorted((root / folder).glob("*.json")):
            if not beside.is_intact(path):
                yield f"{_place(path, root.parent)}: it is not what its name says"


def _old_pages(folder: Path) -> Iterator[str]:
    if kept_in_git.leaves_pages_out(folder):
        return  # they are made anew from what is merged
    pages = published.pages(folder)
    for path in published.left_over(folder, pages):
        advice = (
            f"`harness leaderboard {printable(folder)} --render` removes what was rendered; move away what is yours"
        )
        yield f"{_place(path, folder)}: no record gives it; {advice}"
    for name, text in pages.items():
        path = folder / name
        if not path.is_file():
            yield f"{name}: it is missing; `harness leaderboard {printable(folder)} --render` writes it"
        elif (content := path.read_bytes()) != text.encode():
            why = "git left a conflict in it" if conflicts.in_text(content) else "not what the records give"
            yield f"{name}: {why}; `harness leaderboard {printable(folder)} --render` writes it anew"


def _place(path: Path, folder: Path) -> str:
    """Return a path as it stands in the folder."""
    try:
        return printable(path.relative_to(folder))
    except ValueError:
        return printable(path)
