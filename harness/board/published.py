"""A leaderboard's folder: the records that were published, and the two pages made of them."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable
from harness.records import ledger

RECORDS = "records"
MARKDOWN, HTML = "README.md", "index.html"
NOTE = "Rendered from `records/`; do not edit."


def pages(folder: Path) -> dict[str, str]:
    """Return what ``README.md`` and ``index.html`` of a leaderboard's folder should be, by name.

    Raises:
        HarnessError: the folder has no records folder.
    """
    from harness.board import board, markdown_page, page

    built = board.build_reading(ledger.read(records_folder(folder)))
    return {MARKDOWN: markdown_page.render_board(built, note=NOTE), HTML: page.render(built, note=NOTE)}


def render(folder: Path) -> None:
    """Write both pages anew.

    Raises:
        HarnessError: the folder has no records folder, or the disk refuses.
    """
    for name, text in pages(folder).items():
        try:
            write_atomic(folder / name, text)
        except OSError as error:
            raise HarnessError(f"cannot write '{printable(folder / name)}': {error.strerror or error}") from error


def records_folder(folder: Path) -> Path:
    """Return the folder of the record files.

    Raises:
        HarnessError: there is none, so this is no leaderboard's folder.
    """
    if not (folder / RECORDS).is_dir():
        raise HarnessError(
            f"'{printable(folder)}' is no leaderboard's folder: it has no folder '{RECORDS}'; give one that has, such as "
            "'leaderboards'"
        )
    return folder / RECORDS
