"""Measurements that stand on a board more than once: a ledger that was copied, a line that a merge doubled, or two results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.names import counted, printable
from harness.records.ledger import Reading

Place = Callable[[Path], str]


@dataclass
class _Double:
    """A record by its number, and the one that it repeats."""

    number: int
    first: int
    is_same: bool


def problems(reading: Reading, place: Place, is_old: Callable[[int], bool] = lambda _: False) -> Iterator[str]:
    """Yield a sentence for each thing that stands twice, which names both and blames the one that was added.

    Not told are an untouched model that scored the same again, and a record that two ledgers share which differ otherwise:
    two people published it, and it counts once.

    Args:
        reading: a board's.
        place: what a ledger is called.
        is_old: says by its number whether a record stood there before; such a one is not blamed.
    """
    found = _found(reading, is_old)
    copied = _copies(reading, found, is_old)
    for file, of in copied.items():
        count = sum(origin.file == file for origin in reading.origins)
        others = " and ".join(sorted(map(place, of)))
        stand = f"{counted(count, 'record')} of it {'stands' if count == 1 else 'all stand'} in {others} already"
        yield f"{place(file)}: a copy: {stand}; remove {place(file)}"
    for double in found:
        here, there = reading.origins[double.number], reading.origins[double.first]
        where = f"{place(here.file)}, line {here.line}"
        key = reading.records[double.number].key()
        if here.file in copied:
            continue
        if here.file == there.file:
            what = "the same record as" if double.is_same else "a record of the same measurement as"
            yield (
                f"{where}: {what} line {there.line} (key {key}); `harness leaderboard {printable(here.file)} --repair "
                "--renew-chain` takes it out"
            )
        elif not double.is_same:
            one, other = reading.records[double.number].value, reading.records[double.first].value
            yield (
                f"{where}: the same measurement (key {key}) stands in {place(there.file)}, line {there.line} already, made at "
                f"another time ({_number(one)} here, {_number(other)} there); remove {place(here.file)} and publish again beside "
                "the other (--skip-refused), or withdraw one of the two (`harness leaderboard BOARD --withdraw`)"
            )


def _found(reading: Reading, is_old: Callable[[int], bool]) -> list[_Double]:
    """Return every record whose measurement stands before it; what stood there before counts as first."""
    order = sorted(range(len(reading.records)), key=lambda number: not is_old(number))
    first: dict[str, int] = {}
    found = []
    for number in order:
        record = reading.records[number]
        known = first.setdefault(record.key(), number)
        if known != number:
            before = reading.records[known]
            is_same = record.digest() == before.digest()
            is_one_file = reading.origins[number].file == reading.origins[known].file
            if is_same or is_one_file or not record.repeats(before):
                found.append(_Double(number, known, is_same))
    return found


def _copies(reading: Reading, found: list[_Double], is_old: Callable[[int], bool]) -> dict[Path, set[Path]]:
    """Return the ledgers of which every record stands in others, with those; one that stood there before is none."""
    sizes: dict[Path, int] = defaultdict(int)
    for number, origin in enumerate(reading.origins):
        sizes[origin.file] += 1 if not is_old(number) else len(reading.records) + 1
    same: dict[Path, list[Path]] = defaultdict(list)
    for double in found:
        here, there = reading.origins[double.number].file, reading.origins[double.first].file
        if double.is_same and here != there:
            same[here].append(there)
    return {file: set(others) for file, others in same.items() if len(others) == sizes[file]}


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
