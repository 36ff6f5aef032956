"""A leaderboard's folder: the records that were published, and the pages made of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable
from harness.records import ledger
from harness.removal import PAGE, refuse_links, remove

if TYPE_CHECKING:
    from harness.board.tables import Board

RECORDS, PAGES = "records", "pages"
MARKDOWN, HTML = "README.md", "index.html"
NOTE = "Rendered from `records/`; do not edit."


def pages(folder: Path) -> dict[str, str]:
    """Return what the pages of a leaderboard's folder should be, by path: ``README.md``, ``index.html``, ``pages/PLUGIN.html``.

    Raises:
        HarnessError: the folder has no records folder.
    """
    return _pages(folder)[0]


def _pages(folder: Path) -> tuple[dict[str, str], Board]:
    from harness.board import board, index, markdown_page, page, settings

    own = settings.read(folder)
    built = board.build_reading(ledger.read(records_folder(folder), with_foreign=False))
    chapters = index.chapters(built)
    made = {
        MARKDOWN: markdown_page.render_board(built, note=NOTE, settings=own, tables=markdown_page.FOLDED),
        HTML: index.render(built, chapters, folder=PAGES, note=NOTE, settings=own),
        **{
            f"{PAGES}/{chapter.file}": page.render(
                chapter.board, note=NOTE, title=chapter.title, home=f"../{HTML}", settings=own
            )
            for chapter in chapters
        },
    }
    return made, built


def render(folder: Path) -> list[str]:
    """Write the pages anew, and remove those that no record gives any more.

    Returns:
        A sentence for each line that is no record, and for each score that its samples, tasks or counts contradict.

    Raises:
        HarnessError: the folder has no records folder, or the disk refuses.
    """
    refuse_links(folder / PAGES)
    refuse_other_pages(folder)
    made, built = _pages(folder)
    for name, text in made.items():
        try:
            (folder / name).parent.mkdir(exist_ok=True)
            write_atomic(folder / name, text)
        except OSError as error:
            raise HarnessError(f"cannot write '{printable(folder / name)}': {error.strerror or error}") from error
    for path in left_over(folder, made):
        if _is_rendered(path):
            remove(path, below=folder, named=PAGE)
    return [*built.omissions.problems, *built.omissions.contradicted]


def refuse_other_pages(folder: Path) -> None:
    """Refuse to render where a ``README.md`` or ``index.html`` of somebody's own stands.

    Raises:
        HarnessError: one does, and rendering would write over it.
    """
    for name in (MARKDOWN, HTML):
        path = folder / name
        if path.is_file() and path.stat().st_size and not _is_rendered(path):
            raise HarnessError(
                f"'{printable(path)}' was not rendered by the harness, which would write over it; move it away, or name "
                "another folder for the board"
            )


def left_over(folder: Path, made: Collection[str]) -> list[Path]:
    """Return the pages of plugins in a leaderboard's folder that are none of those ``made`` of its records."""
    return [path for path in sorted((folder / PAGES).glob("*.html")) if f"{PAGES}/{path.name}" not in made]


def _is_rendered(page: Path) -> bool:
    """Return whether a page says that it is made of records, so that one of somebody's own stays."""
    try:
        return not page.is_symlink() and page.is_file() and NOTE.encode() in page.read_bytes()
    except OSError:
        return False


def where(folder: Path) -> str:
    """Return where the pages lie, for a sentence."""
    return ", ".join(printable(folder / name) for name in (MARKDOWN, HTML)) + f" and {printable(folder / PAGES)}"


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
