"""Records into a leaderboard's folder: what lies beside the ledger first, the ledger last, nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from filelock import FileLock

from harness.board import kept_in_git
from harness.board.published import PAGES, RECORDS, refuse_other_pages
from harness.errors import HarnessError
from harness.folders import check_writable
from harness.names import printable, safe_name
from harness.publishing.files import Outcome, PlannedFile, compressed, planned, write_all
from harness.publishing.selection import Item, where
from harness.records import beside, ledger, samples
from harness.records.beside import ShortLine
from harness.records.ledger import Origin
from harness.records.record import Record, digest_of
from harness.removal import TEMPORARY, refuse_links, remove

BASELINES = "baseline"


@dataclass
class Published:
    """What a board gained: records by ledger, files beside it; how many records it had, and a sentence for each refused."""

    added: dict[Path, list[ShortLine]] = field(default_factory=dict)
    files: list[Outcome] = field(default_factory=list)
    known: int = 0
    refused: list[str] = field(default_factory=list)


def publish(items: Sequence[Item], folder: Path, *, name: str | None, skip_refused: bool, dry_run: bool) -> Published:
    """Append the records of ``items`` to ledgers below ``folder/records``, with their sample files and what many of them say.

    Done again after it was stopped, it adds what is missing and nothing else.

    Args:
        name: the ledger, without ``.jsonl``; by default a new one for what is added, called by the plugin of its records and
            eight digits of their digests, so that no two submissions change the same file.
        skip_refused: leave out a measurement that is on the board with another content; without it that is an error.
        dry_run: only find out what would be done.

    Raises:
        HarnessError: a measurement is on the board with another content, or the disk refuses.
    """
    if name is not None and safe_name(name) != name:
        raise HarnessError(
            f"'{printable(name)}' is no name for a ledger; take small letters, digits, '-', '_' and '.', such as "
            f"'{safe_name(name)}'"
        )
    records_folder = folder / RECORDS
    refuse_other_pages(folder)
    if not dry_run:
        refuse_links(records_folder, folder / PAGES)
        check_writable(records_folder)
    with nullcontext() if dry_run else FileLock(records_folder / ".publish.lock"):
        if not dry_run:
            _tidy(folder)
        new, there, refused = _sorted(items, records_folder)
        if refused and not skip_refused:
            raise HarnessError(_refusal(refused))
        published = Published(known=len(items) - len(new) - len(refused), refused=refused)
        for ledger_name, records in _by_ledger(new, name).items():
            published.added[records_folder / f"{ledger_name}.jsonl"] = [ShortLine(record) for record in records]
        # The samples of records that are there already, too: an interrupted copy is completed.
        files = [*_sample_files([*new, *there]), *_shared_files(published.added)]
        for_git = [planned(name, text) for name, text in kept_in_git.settings(folder).items()]
        published.files = write_all(for_git, folder, dry_run=dry_run) if new else []
        published.files += write_all(files, records_folder, dry_run=dry_run)
        if not dry_run:
            _append(published.added)
    return published


def _tidy(folder: Path) -> None:
    """Remove what a killed publisher left unfinished; the lock says that no other is at work."""
    inside = (samples.PUBLISHED_FOLDER, *beside.FOLDERS)
    for place in (folder, folder / PAGES, folder / RECORDS, *(folder / RECORDS / name for name in inside)):
        for left in place.glob(".*.partial"):
            remove(left, below=folder, named=TEMPORARY)


def _append(added: dict[Path, list[ShortLine]]) -> None:
    for path, records in added.items():
        try:
            ledger.append(path, records)
        except OSError as error:
            raise HarnessError(f"cannot append to '{printable(path)}': {error.strerror or error}") from error


def _sorted(items: Sequence[Item], folder: Path) -> tuple[list[Item], list[Item], list[str]]:
    """Return the items that the board lacks, those it has, and a sentence for each it has with another content."""
    known, withdrawn = _known(folder)
    new, there, refused = [], [], []
    for item in items:
        record = item.record
        old, origin = known.get(record.key(), (None, None))
        if record.digest() in withdrawn:
            refused.append(
                f"{where(item.origin)}: key {record.key()} was withdrawn: {printable(withdrawn[record.digest()])}"
            )
        elif old is None or origin is None:
            new.append(item)
        elif old.digest() == record.digest():
            there.append(item)
        elif not record.repeats(old):
            refused.append(
                f"{where(item.origin)}: key {record.key()} ({printable(record.task.name)}, "
                f"{printable(record.metric.name)}) stands in {where(origin)} with another content"
            )
    return new, there, refused


def _refusal(refused: Sequence[str]) -> str:
    more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
    return (
        f"{len(refused)} of these measurements are on the board already, made at another time, or were withdrawn, so nothing is "
        f"published (--skip-refused publishes the rest): {'; '.join(refused[:5])}{more}"
    )


def _known(folder: Path) -> tuple[dict[str, tuple[Record, Origin]], dict[str, str]]:
    """Return the records of the board by key, and why others are withdrawn, by digest: their keys are free again."""
    if not folder.is_dir():
        return {}, {}
    reading = ledger.read(folder, with_foreign=False)
    if reading.problems:
        raise HarnessError(
            f"the board in '{printable(folder)}' has {len(reading.problems)} bad lines ({reading.problems[0]}); "
            f"`harness leaderboard {printable(folder.parent)} --repair` sets them aside"
        )
    known = {record.key(): (record, origin) for record, origin in zip(reading.records, reading.origins, strict=True)}
    return known, {one.record.digest(): one.reason for one in reading.withdrawn}


def _by_ledger(items: Sequence[Item], name: str | None) -> dict[str, list[Record]]:
    """Return the records by the name of their ledger: the one that was asked for, or new ones, called by what they hold."""
    if name is not None:
        return {name: [item.record for item in items]} if items else {}
    by_plugin: dict[str, list[Record]] = {}
    for item in items:
        by_plugin.setdefault(_plugin_name(item.record, items), []).append(item.record)
    return {f"{plugin}-{_digest_of(records)}": records for plugin, records in by_plugin.items()}


def _digest_of(records: Sequence[Record]) -> str:
    """Return eight digits for these records, in whatever order they come."""
    return digest_of({"records": sorted(record.digest() for record in records)})[:8]


def _plugin_name(record: Record, items: Sequence[Item]) -> str:
    """Return the plugin of a record; of the untouched model the one plugin it was run beside."""
    if record.plugin.name is not None:
        return safe_name(record.plugin.name)
    plugins = {item.record.plugin.name for item in items} - {None}
    return safe_name(str(plugins.pop())) if len(plugins) == 1 else BASELINES


def _sample_files(items: Sequence[Item]) -> list[PlannedFile]:
    files = {item.samples.sha256: item.samples for item in items if item.samples is not None}
    return [
        PlannedFile(PurePosixPath(samples.published_name(sha256)), lambda file=file: compressed(file.blocks()))  # type: ignore[misc]
        for sha256, file in files.items()
    ]


def _shared_files(added: dict[Path, list[ShortLine]]) -> list[PlannedFile]:
    files = {name: content for lines in added.values() for line in lines for name, content in line.files.items()}
    return [planned(name, content) for name, content in files.items()]
