"""One call in an answer, as its trace has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Call:
    """One call: where it stands (characters of the answer before it), and what came of it.

    ``margin`` is by how many logits the tool was ahead of the best word, bias included; None where it was not chosen
    by its row. ``forced`` names what chose it then.
    """

    tool: str
    at: int
    margin: float | None = None
    arguments: str = ""
    result: str | None = None
    error: str | None = None
    detail: str = ""
    forced: str = ""

    def add_detail(self, words: str) -> None:
        """Add a few words on what happened."""
        self.detail = "; ".join(filter(None, [self.detail, words]))
