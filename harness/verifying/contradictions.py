"""Scores that something contradicts: their own samples, the tasks of their group, or the record itself.

They are what ``verify`` calls errors of the score. Who shows or compares scores asks here, so that none of them passes for one
that follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.names import printable
from harness.records import samples
from harness.records.ledger import Origin
from harness.records.record import Record
from harness.verifying import claims, following, sampled
from harness.verifying.claims import Doubt
from harness.verifying.sampled import Sampled

OfSamples = Callable[[int], str]


class Contradictions:
    """Says of each record what contradicts it; what was found is kept."""

    def __init__(
        self, records: Sequence[Record], origins: Sequence[Origin], of_samples: OfSamples | None = None
    ) -> None:
        """Read nothing yet.

        Args:
            origins: where each record was read; without, groups are not compared with their tasks.
            of_samples: says of a record by its number what its samples contradict; by default the files are read for it.
        """
        self._records, self._origins = records, origins
        self._of_samples = of_samples or _Files(records, origins)
        self._known: dict[int, str] = {}
        self._tasks: dict[int, list[int]] | None = None

    def of(self, number: int) -> str:
        """Return what contradicts the record with this number, empty when nothing does."""
        if number not in self._known:
            record = self._records[number]
            said = _first_error(claims.of_the_score(record))
            self._known[number] = said or (self._of_group(number) if record.task.group else self._of_samples(number))
        return self._known[number]

    def _of_group(self, number: int) -> str:
        tasks = self._tasks_of(number)
        for task in tasks:
            if said := self.of(task):
                return f"its task {self._records[task].task.name} does not: {said}"
        return _first_error(following.from_tasks(self._records[number], [self._records[task] for task in tasks]).doubts)

    def _tasks_of(self, number: int) -> list[int]:
        if self._tasks is None:
            found = following.tasks_of_groups(self._records, self._origins) if self._origins else ()
            self._tasks = {group: tasks for group, tasks, _ in found}
        return self._tasks.get(number, [])


def of_file(records: Sequence[Record], numbers: Sequence[int], found: Sampled) -> dict[int, str]:
    """Return what a sample file contradicts of the records ``numbers`` that name it, empty texts included."""
    said = {number: _first_error(following.from_samples(records[number], found).doubts) for number in numbers}
    copied = following.copies([records[number] for number in numbers], {found.sha256: found})
    for place, doubt in copied:
        said[numbers[place]] = said[numbers[place]] or _first_error([doubt])
    return said


def unreadable(error: HarnessError, path: Path) -> str:
    """Return what is said of the records whose sample file cannot be read, the same wherever its folder lies."""
    return f"its samples cannot be read: {without_folder(error, path)}"


def without_folder(error: HarnessError, path: Path) -> str:
    """Return what is wrong with the file at ``path``, which stands in it by its name alone."""
    return str(error).replace(printable(path), printable(path.name))


class _Files:
    """Reads a sample file when the first of its records is asked about."""

    def __init__(self, records: Sequence[Record], origins: Sequence[Origin]) -> None:
        self._records, self._said = records, dict[int, str]()
        self._paths = [samples.find(record, origin.file) for record, origin in zip(records, origins, strict=False)]
        self._numbers: dict[Path, list[int]] = defaultdict(list)
        for number, path in enumerate(self._paths):
            if path is not None:
                self._numbers[path].append(number)

    def __call__(self, number: int) -> str:
        path = self._paths[number] if self._paths else None
        if path is not None and number not in self._said:
            self._said |= self._read(path)
        return self._said.get(number, "")

    def _read(self, path: Path) -> dict[int, str]:
        numbers = self._numbers[path]
        try:
            return of_file(self._records, numbers, sampled.gather(path, [self._records[n] for n in numbers]))
        except HarnessError as error:
            return dict.fromkeys(numbers, unreadable(error, path))


def _first_error(doubts: Iterable[Doubt]) -> str:
    return next((sentence for severity, sentence in doubts if severity == "error"), "")
