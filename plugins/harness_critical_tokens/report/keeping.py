"""The page beside what a method leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_critical_tokens.report.page import write_page
from harness_critical_tokens.responses import made_by, write_responses

if TYPE_CHECKING:
    from harness_critical_tokens.encoded_pairs import EncodedPairs


def keep_page(workdir: Path, method: Any, lm: Any, encoded: EncodedPairs, *, seed: int) -> None:
    """Keep the responses of some pairs, and make ``report.html`` of them and of what else stands in the folder by now.

    Args:
        workdir: of the method.
        method: the dataclass of the method.
        lm: what it was applied to.
        encoded: the pairs.
        seed: the run's.
    """
    responses = [
        (pair, side, response)
        for pair, both in zip(encoded.pairs, encoded.responses, strict=True)
        for side, response in zip(("chosen", "rejected"), both, strict=True)
    ]
    write_responses(workdir, responses, made_by=made_by(method, lm, seed=seed))
    write_page(workdir)
