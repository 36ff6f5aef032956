"""Runs that read a file made for their own seed, such as ``pairs-0.jsonl`` with seed 0, are the seeds of one row."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.records.grouping import Keys, method_text
from harness.records.record import Record

SEED = "{seed}"
# A name ends in letters: "1.5" and "Qwen2.5-0.5B" are no files.
_ENDING = re.compile(r"\.[^\W\d]\w*$")


def of_any_seed(record: Record) -> Record | None:
    """Return a record with its seed taken out of the names of files among its options; None where no name has it."""
    seed = record.seeds.random
    if seed is None:
        return None
    number = re.compile(rf"(?<!\d){seed}(?!\d)(?!\w*$)")
    options = {
        name: number.sub(SEED, value) if isinstance(value, str) and _ENDING.search(value) else value
        for name, value in record.method.options.items()
    }
    if options == record.method.options:
        return None
    method = record.method.model_copy(update={"options": options, "inputs": None})
    return record.model_copy(update={"method": method})


def joined(
    records: Sequence[Record], groups: Sequence[Sequence[int]], keys: Keys
) -> list[tuple[Record, tuple[int, ...]]]:
    """Return the groups of records that are rows, those of one method with a file for each seed as one.

    Args:
        groups: numbers of records; those of one group are seeds of one method with the same options.

    Returns:
        For each row the record that it is told by, and the numbers of its records. Groups stay apart where they have a seed in
        common: their files are not told apart by it then.
    """
    alike: dict[tuple[str, str], list[int]] = {}
    told: dict[int, Record] = {}
    for place, group in enumerate(groups):
        found = of_any_seed(records[group[0]])
        if found is not None:
            told[place] = found
            alike.setdefault((keys.board(records[group[0]]), method_text(found)), []).append(place)
    rows: dict[int, tuple[Record, tuple[int, ...]]] = {
        place: (records[group[0]], tuple(group)) for place, group in enumerate(groups)
    }
    for places in alike.values():
        seeds = [{records[index].seeds.random for index in groups[place]} for place in places]
        if sum(map(len, seeds)) == len(set().union(*seeds)):
            first, *others = places
            rows[first] = (told[first], tuple(index for place in places for index in groups[place]))
            for place in others:
                del rows[place]
    return list(rows.values())
