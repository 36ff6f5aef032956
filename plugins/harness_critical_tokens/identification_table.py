"""What several runs of ``score`` found, as one table for a paper: mean over runs of each figure, least and most."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.names import printable
from harness_critical_tokens.identification import GROUPS, rankings

REPORT = "report.json"
COLUMNS = {
    "hit_at_1": "hit@1",
    "hit_at_3": "hit@3",
    "mean_reciprocal_rank": "MRR",
    "auc": "AUC",
    "share": "share of weight",
    "share_propagated": "on propagated",
}
RANKINGS = (*rankings(1.0), "random")


def table(folders: Sequence[Path], *, by: str | None = None) -> str:
    """Return a Markdown table with a row for each way to rank tokens, of runs that differ in their seed alone, say.

    Args:
        folders: of runs of ``score``, or their ``artefacts/``.
        by: ``kind`` or ``style``: one row for each of their values instead, with ``hit_at_1`` alone.

    Raises:
        HarnessError: a folder has no such run, or its pairs name no error, or not the groups that are asked for.
    """
    found = [read(folder) for folder in folders]
    counts = sorted({one["responses"] for one in found})
    responses = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    runs = f"{len(found)} runs" if len(found) > 1 else "1 run"
    note = ", mean over runs (least-most)" if len(found) > 1 else ""
    lines = [f"{runs} of {responses} responses{note}; ties share their mean rank.", ""]
    rows = _by_ranking(found) if by is None else _by_group(found, by, folders)
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def read(folder: Path) -> Mapping[str, Any]:
    """Return what a run's report says of finding known errors.

    Raises:
        HarnessError: there is none.
    """
    path = next((at for at in (folder / REPORT, folder / "artefacts" / REPORT) if at.is_file()), None)
    if path is None:
        raise HarnessError(f"'{printable(folder)}' has no {REPORT}; name folders of runs of score, or their artefacts/")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["identification"]
        if found["responses"] > 0:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise HarnessError(f"'{printable(path)}' says nothing of known errors; score pairs that have first_wrong_char")


def _by_ranking(found: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    yield ["ranking by", *COLUMNS.values()]
    yield ["---"] * (len(COLUMNS) + 1)
    for ranking in RANKINGS:
        yield [ranking, *(_spread([one[ranking][column] for one in found]) for column in COLUMNS)]


def _by_group(found: Sequence[Mapping[str, Any]], by: str, folders: Sequence[Path]) -> Iterator[list[str]]:
    apart = f"by_{by}"
    for one, folder in zip(found, folders, strict=True):
        if apart not in one["random"]:
            raise HarnessError(
                f"the pairs of '{printable(folder)}' have no {by}; --by takes one of {', '.join(GROUPS)}"
            )
    yield [by, *(f"{ranking}: hit@1" for ranking in RANKINGS)]
    yield ["---"] * (len(RANKINGS) + 1)
    for group in sorted({group for one in found for group in one["random"][apart]}):
        some = [one for one in found if group in one["random"][apart]]
        yield [group, *(_spread([one[ranking][apart][group]["hit_at_1"] for one in some]) for ranking in RANKINGS)]


def _spread(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.2f}"
    return f"{mean} ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else mean
