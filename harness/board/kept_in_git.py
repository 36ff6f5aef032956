"""What of a leaderboard's folder git keeps: records and what lies beside them; pages only where no workflow renders them."""

from __future__ import annotations

import re
from pathlib import Path

from harness.board.published import HTML, MARKDOWN, PAGES

IGNORE, ATTRIBUTES = ".gitignore", ".gitattributes"
# What the harness leaves for the machine it ran on.
LOCKS = """\
# Written by `harness publish`: locks, and what a repair set aside, are of one machine.
.*.lock
.*.partial
*.torn
*.backup-*
"""
RENDERED = f"""\
# The workflow of the repository renders the pages, so no two submissions change the same one. Without these lines they
# are part of the board: committed with the records, and checked.
/{MARKDOWN}
/{HTML}
/{PAGES}/
"""
# Files are named by their content, which another end of line would change.
BYTES = "* -text\n"
# What `leaderboard --repair` and a killed writer leave.
SET_ASIDE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.jsonl\.(?:torn|backup-[0-9a-f]{8})")


def settings(folder: Path) -> dict[str, str]:
    """Return the content of the files that tell git what to keep of a board, by name, those that are there left out.

    The pages of a new board are left to a workflow; one that has pages goes on keeping them.
    """
    has_pages = (folder / HTML).exists()
    wanted = {IGNORE: LOCKS if has_pages else LOCKS + RENDERED, ATTRIBUTES: BYTES}
    return {name: text for name, text in wanted.items() if not (folder / name).exists()}


def leaves_pages_out(folder: Path) -> bool:
    """Whether git keeps no pages of this board, because a workflow renders them."""
    try:
        lines = (folder / IGNORE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    return f"/{HTML}" in map(str.strip, lines)
