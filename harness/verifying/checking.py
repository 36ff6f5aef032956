"""Is a leaderboard's folder in order? What CI asks of a pull request that adds records, which it only reads as data."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.board import published, settings
from harness.errors import HarnessError
from harness.names import printable
from harness.records import beside, ledger, samples
from harness.records.ledger import Reading
from harness.records.samples import BLOCK, MOST_LINE_BYTES, MOST_SAMPLE_BYTES
from harness.verifying import verify

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


def check(folder: Path) -> Checked:
    """Look at everything in a leaderboard's folder: kinds and sizes of files, records, chain, samples, pages.

    Files that are too large or are no plain files are named and nothing is read then.

    Raises:
        HarnessError: the folder has no records folder.
    """
    root = published.records_folder(folder)
    problems = [*_strangers(folder), *_too_large(root), *_own_words(folder)]
    files = [path for path in ledger.record_files(root) if not path.is_symlink()]
    if problems:
        return Checked(len(files), 0, problems, [])
    reading = ledger.read(root)
    problems += reading.problems
    problems += _duplicates(reading)
    report = verify.examine(reading, root)
    found: dict[str, list[str]] = {"error": [], "warning": []}
    for finding in report.findings:
        place = _place(finding.file, folder) + (f", line {finding.line}" if finding.line else "")
        found[finding.severity].append(f"{place}: {finding.sentence}")
    told = {problem.partition(": ")[2] for problem in reading.problems}
    problems += [sentence for sentence in found["error"] if sentence.partition(": ")[2] not in told]
    problems += _damaged(root)
    problems += _old_pages(folder)
    return Checked(len(files), len(reading.records), problems, found["warning"])


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
                left = ".torn" in name or ".backup-" in name
                why = "; --repair left it: look at it, then move it away" if left else ""
                yield f"{printable(place)}: no such file belongs into a leaderboard's folder{why}"
            elif LOCK_NAME.fullmatch(name) and path.stat().st_size:
                yield f"{printable(place)}: a lock file with content"
        folders.sort()


def _belongs(place: Path, *, is_folder: bool) -> bool:
    records = published.RECORDS
    names: dict[tuple[str, ...], list[re.Pattern[str]]] = {
        (published.PAGES,): [PAGE_NAME],
        (records,): [LEDGER_NAME, LOCK_NAME],
        (records, samples.PUBLISHED_FOLDER): [SAMPLE_NAME],
    }
    names |= {(records, folder): [beside.FILE_NAME] for folder in beside.FOLDERS}
    if is_folder:
        return place.parts in names
    if len(place.parts) == 1:
        return place.name in {published.MARKDOWN, published.HTML, settings.FILE}
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


def _duplicates(reading: Reading) -> Iterator[str]:
    """Yield a sentence for each record whose measurement stands on the board already."""
    first: dict[str, str] = {}
    for record, origin in zip(reading.records, reading.origins, strict=True):
        place = f"{printable(origin.file)}, line {origin.line}"
        key = record.key()
        if key in first:
            yield f"{place}: the same measurement (key {key}) stands in {first[key]} already"
        else:
            first[key] = place


def _damaged(root: Path) -> Iterator[str]:
    """Yield a sentence for each file beside the ledgers that is not what its name says, whether a record names it or not."""
    for folder in beside.FOLDERS:
        for path in sorted((root / folder).glob("*.json")):
            if not beside.is_intact(path):
                yield f"{_place(path, root.parent)}: it is not what its name says"


def _old_pages(folder: Path) -> Iterator[str]:
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
        elif path.read_bytes() != text.encode():
            yield f"{name}: not what the records give; `harness leaderboard {printable(folder)} --render` writes it anew"


def _place(path: Path, folder: Path) -> str:
    """Return a path as it stands in the folder."""
    try:
        return printable(path.relative_to(folder))
    except ValueError:
        return printable(path)
