"""Runs that read a file made for their own seed, such as ``pairs-0.jsonl`` with seed 0, are the seeds of one row."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.records.grouping import Keys, method_text
from harness.records.record import Record

SEED = "{seed}"
# A name ends in letters: "1.5" and "Qwen2.5-0.5B" are no files.
_ENDING = re.compile(r"\.[^\W\d]\w*$")
# Numbers of one name that are looked at, the last ones.
MOST_NUMBERS = 6


class SeedFiles:
    """Which part of a file's name among the options of some records is the seed.

    Of the numbers in a name that are the seed, those are replaced by which most seeds of the method name their files alike:
    ``v2-pairs-2`` is ``v2-pairs-{seed}`` beside ``v2-pairs-1``. Where nothing tells, it is the last one.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        # By plugin, method, option and name without its seed: the seeds that have a file of that name.
        self._seeds: dict[tuple[Any, ...], set[int]] = {}
        seen = set()
        for record in records:
            for option, value in record.method.options.items():
                place, seed = _place(record, option), record.seeds.random
                if isinstance(value, str) and seed is not None and (place, value, seed) not in seen:
                    seen.add((place, value, seed))
                    for name in _without_seed(value, seed):
                        self._seeds.setdefault((*place, name), set()).add(seed)

    def of_any_seed(self, record: Record) -> Record | None:
        """Return a record with its seed taken out of the names of files among its options; None where no name has it."""
        options = {option: self._of_any_seed(record, option) for option in record.method.options}
        if options == record.method.options:
            return None
        method = record.method.model_copy(update={"options": options, "inputs": None})
        return record.model_copy(update={"method": method})

    def _of_any_seed(self, record: Record, option: str) -> Any:
        value, seed = record.method.options[option], record.seeds.random
        if not isinstance(value, str) or seed is None:
            return value
        # The first of equals: ``_without_seed`` gives the likeliest first.
        place = _place(record, option)
        return max(_without_seed(value, seed), key=lambda name: len(self._seeds.get((*place, name), ())), default=value)

    def joined(
        self, records: Sequence[Record], groups: Sequence[Sequence[int]], keys: Keys
    ) -> list[tuple[Record, tuple[int, ...]]]:
        """Return the groups of records that are rows, those of one method with a file for each seed as one.

        Args:
            groups: numbers of records; those of one group are seeds of one method with the same options.

        Returns:
            For each row the record that it is told by, and the numbers of its records. Groups stay apart where they have a seed
            in common: their files are not told apart by it then.
        """
        alike: dict[tuple[str, str], list[int]] = {}
        told: dict[int, Record] = {}
        for place, group in enumerate(groups):
            found = self.of_any_seed(records[group[0]])
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


def _place(record: Record, option: str) -> tuple[Any, ...]:
    return record.plugin.name, record.method.name, option


def _without_seed(value: str, seed: int) -> Iterator[str]:
    """Yield a file's name with some of the numbers that are the seed taken out: the last alone first, all of them last."""
    if not _ENDING.search(value):
        return
    numbers = [*re.finditer(rf"(?<!\d){seed}(?!\d)(?!\w*$)", value)][-MOST_NUMBERS:]
    for count in range(1, len(numbers) + 1):
        for chosen in itertools.combinations(reversed(numbers), count):
            name = value
            for number in chosen:  # from the end of the name on, so that the places before stay
                name = name[: number.start()] + SEED + name[number.end() :]
            yield name
