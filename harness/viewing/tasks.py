"""The tasks of a page: the documents of one side or two, put beside each other, with what tells right from wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.names import counted, printable
from harness.pages import packed
from harness.records import samples
from harness.records.sources import RIGHT_OR_WRONG
from harness.showing import content
from harness.viewing.rows import LOGLIKELIHOOD, Answered, Clean, Column, Island, read
from harness.viewing.tokens import TAKEN_OUT, TEXT_ALONE, Tokens

if TYPE_CHECKING:
    from harness.records.record import Record

# Characters of all texts of a page together, and of one text at most and at least.
MOST_CHARACTERS, LONGEST, SHORTEST = 100_000_000, 200_000, 2_000
# Of the values of a metric that tells right from wrong, how many have to be nothing or all.
WHOLE_SHARE = 0.1
NO_SAMPLES = "No sample file of this task lies beside its records, so there are no documents to look at."


@dataclass(frozen=True)
class Given:
    """What a side answered to one task with one seed: its records, and their sample file, None where it is not there."""

    records: Sequence[Record]
    path: Path | None
    seed: int | None = None


@dataclass(frozen=True)
class Asked:
    """One task of a page.

    Attributes:
        name: the task's.
        groups: the groups it is in.
        sides: what each side answered, the one that is looked at last; several of a side are its seeds.
    """

    name: str
    groups: Sequence[str]
    sides: Sequence[Sequence[Given]]


@dataclass
class Islands:
    """The parts of a page's data, each of which its script unpacks when it is wanted."""

    found: list[Island] = field(default_factory=list)

    def add(self, island: Island) -> int:
        """Take in one and return its number."""
        self.found.append(island)
        return len(self.found) - 1


class Reader:
    """Reads the sample files of tasks; what went wrong is in ``problems``."""

    def __init__(
        self, asked: Sequence[Asked], clean: Clean, *, metric: str | None = None, tokens: Tokens | None = None
    ) -> None:
        """Read nothing yet.

        Args:
            asked: all tasks of the page, which share its room.
            clean: takes secrets out of a text.
            metric: what tells right from wrong, where it is not lm-eval's.
            tokens: marks those of prompts; None for text alone.
        """
        files = [given for task in asked for side in task.sides for given in side if given.path is not None]
        docs = sum(given.records[0].counts.docs for given in files)
        self._most = min(LONGEST, max(SHORTEST, MOST_CHARACTERS // max(docs, 1)))
        self._clean, self._metric, self._tokens = clean, metric, tokens or Tokens()
        self.said_of_tokens = TAKEN_OUT if self._tokens.can_mark else TEXT_ALONE
        self.islands = Islands()
        self.problems: list[str] = []

    def task(self, asked: Asked) -> dict[str, Any]:
        """Return what the page says of a task; its documents are among the islands then."""
        sides = [
            [(given, self._read(asked, given)) for given in side if given.path is not None] for side in asked.sides
        ]
        problems = [answered.problem for side in sides for _, answered in side if answered.problem]
        said = {"name": printable(asked.name), "groups": [printable(name) for name in asked.groups]}
        if not sides[-1]:
            return said | {"docs": 0, "notes": [NO_SAMPLES], "island": None}
        main = sides[-1][0][1]
        for side in sides[:-1]:
            if not side:
                problems.append("The other side has no sample file of this task here, so its answers are not shown.")
        sides = [side for side in sides if side]
        places = [[_aligned(main, answered) for _, answered in side] for side in sides]
        if any(-1 in place for side in places for place in side):
            problems.append(_alone(places))
        island = self._island(sides, places)
        return said | {"docs": len(main.keys), "notes": problems, "island": self.islands.add(packed(island))}

    def _read(self, asked: Asked, given: Given) -> Answered:
        assert given.path is not None
        found = read(
            given.path, docs=given.records[0].counts.docs, most=self._most, clean=self._clean, tokens=self._tokens
        )
        if found.problem:
            self.problems.append(found.problem)
        return found

    def _island(self, sides: list[list[tuple[Given, Answered]]], places: list[list[list[int]]]) -> dict[str, Any]:
        main = sides[-1][0][1]
        filters = list(main.filters)
        columns = [_column(name, sides, places) for name in main.columns]
        return {
            "ids": main.ids,
            "questions": main.questions,
            "filters": [printable(name) for name in filters],
            "columns": columns,
            "decides": _deciding(columns, self._metric),
            "changed": [_changed(name, sides, places) for name in filters],
            "sides": [
                [
                    {"seed": given.seed, "filters": [self._filter(answered, name, place) for name in filters]}
                    for (given, answered), place in zip(side, of_side, strict=True)
                ]
                for side, of_side in zip(sides, places, strict=True)
            ],
        }

    def _filter(self, answered: Answered, name: str, places: list[int]) -> dict[str, Any] | None:
        """Return where the rows of one filter stand, and for each document of the page which of them is its own."""
        filtered = answered.filters.get(name)
        if filtered is None:
            return None
        rows = [-1 if place < 0 else filtered.numbers[place] for place in places]
        is_plain = rows == list(range(len(rows)))
        return {
            "rows": None if is_plain else rows,
            "starts": filtered.starts,
            "blocks": [self.islands.add(block) for block in filtered.blocks],
            "previews": ["" if row < 0 else filtered.previews[row] for row in rows],
        }


def groups_of(records: Sequence[Record]) -> dict[str, list[str]]:
    """Return for each task the groups that name it as theirs."""
    found: dict[str, list[str]] = {}
    for record in records:
        for member in (record.task.members or ()) if record.task.group else ():
            if record.task.name not in found.setdefault(member, []):
                found[member].append(record.task.name)
    return found


def given_by_task(pairs: Sequence[tuple[Record, Path]], seeds: bool = False) -> dict[str, list[Given]]:
    """Return what the records of one side answered, by task; groups have no documents of their own.

    Args:
        pairs: records, and the files they were read from.
        seeds: whether the seed is to be told.
    """
    found: dict[str, dict[str, list[tuple[Record, Path]]]] = {}
    for record, file in pairs:
        if not record.task.group:
            found.setdefault(record.task.name, {}).setdefault(record.run_key(), []).append((record, file))
    given = {task: [_given(runs[key], seeds) for key in runs] for task, runs in found.items()}
    return {task: sorted(several, key=lambda one: one.seed or 0) for task, several in given.items()}


def _given(pairs: Sequence[tuple[Record, Path]], seeds: bool) -> Given:
    paths = (samples.find(record, file) for record, file in pairs)
    records = [record for record, _ in pairs]
    return Given(records, next(filter(None, paths), None), records[0].seeds.random if seeds else None)


def _aligned(main: Answered, other: Answered) -> list[int]:
    """Return for each document of ``main`` its place in ``other``, -1 where it has none; by content where numbers differ."""
    if other.keys == main.keys:
        return list(range(len(main.keys)))
    places = {key: place for place, key in enumerate(other.keys)}
    contents: dict[str, int] = {}
    for place, key in enumerate(other.keys):
        contents[_content(key)] = -1 if _content(key) in contents else place
    return [places.get(key, contents.get(_content(key), -1)) for key in main.keys]


def _content(key: str) -> str:
    return key.partition(":")[2]


def _alone(places: Sequence[Sequence[Sequence[int]]]) -> str:
    alone = sum(any(place[n] < 0 for side in places for place in side) for n in range(len(places[-1][0])))
    return f"{counted(alone, 'document')} of this side the other did not answer; what it alone answered is not shown."


def _column(name: tuple[str, str], sides: Sequence[Any], places: Sequence[Any]) -> dict[str, Any]:
    """Return one metric under one filter: its title, which way is good, and the values of each side, means over seeds."""
    metric, filter_name = name
    records = [record for given, _ in sides[-1] for record in given.records]
    better = next((r.metric.higher_is_better for r in records if (r.metric.name, r.metric.filter) == name), None)
    values = [
        _mean([_values(answered, name, place) for (_, answered), place in zip(side, of_side, strict=True)])
        for side, of_side in zip(sides, places, strict=True)
    ]
    known = [value for side in values for value in side if value is not None]
    is_share = metric != LOGLIKELIHOOD and _tells_right(known)
    title = metric if filter_name == "none" else f"{metric} ({filter_name})"
    return {
        "name": printable(title), "filter": printable(filter_name), "better": True if metric == LOGLIKELIHOOD else better,
        "isShare": is_share, "values": values,
    }  # fmt: skip


def _tells_right(values: Sequence[float]) -> bool:
    """Whether values are those of a metric that is right or wrong, or now and then a part of it."""
    whole = sum(value in (0, 1) for value in values)
    return all(map(content.is_share, values)) and whole >= WHOLE_SHARE * len(values) > 0


def _values(answered: Answered, name: tuple[str, str], places: Sequence[int]) -> Column:
    column = answered.columns.get(name)
    return [None if column is None or place < 0 else column[place] for place in places]


def _mean(seeds: Sequence[Column]) -> Column:
    if len(seeds) == 1:
        return seeds[0]
    return [
        None if any(value is None for value in values) else float(f"{sum(map(float, values)) / len(values):.6g}")
        for values in zip(*seeds, strict=True)
    ]


def _deciding(columns: Sequence[Mapping[str, Any]], metric: str | None) -> int | None:
    """Return which column tells right from wrong, None where none does."""
    order = [*([metric] if metric else []), *RIGHT_OR_WRONG]

    def place(number: int) -> int:
        name = str(columns[number]["name"]).partition(" (")[0]
        return order.index(name) if name in order else len(order)

    shares = [number for number, column in enumerate(columns) if column["isShare"]]
    return min(shares, key=place, default=None)


def _changed(name: str, sides: Sequence[Any], places: Sequence[Any]) -> str:
    """Return for each document whether the sides' answers differ, as a digit; nothing of one side alone."""
    if len(sides) < 2:
        return ""
    digests: list[Callable[[int], tuple[bytes | None, ...]]] = [
        _digests(name, side, of_side) for side, of_side in zip(sides, places, strict=True)
    ]
    found = []
    for number in range(len(places[-1][0])):
        first, last = digests[0](number), digests[-1](number)
        is_known = None not in first and None not in last
        # Of as many seeds each is compared with its own.
        is_other = first != last if len(first) == len(last) else set(first) != set(last)
        found.append("1" if is_known and is_other else "0")
    return "".join(found)


def _digests(name: str, side: Any, places: Any) -> Callable[[int], tuple[bytes | None, ...]]:
    """Return what gives the digests of the answers of each seed to a document."""

    def of(number: int) -> tuple[bytes | None, ...]:
        found = []
        for (_, answered), place in zip(side, places, strict=True):
            filtered = answered.filters.get(name)
            row = -1 if filtered is None or place[number] < 0 else filtered.numbers[place[number]]
            found.append(None if row < 0 else filtered.digests[row])
        return tuple(found)

    return of
