"""Does a record follow: from its digest, its samples, its tasks, the other records of its run, its place in the ledger.

Nothing is imported or executed for it, and no sample file is ever whole in memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import counted, printable
from harness.records import ledger, samples
from harness.records.ledger import Line, Reading
from harness.verifying import claims, following, sampled
from harness.verifying.claims import Doubt, Severity


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be with the record at ``line`` of ``file``; line 0: with the whole file.

    An ``error`` cannot be in records as the harness writes them, a ``warning`` is for a person to judge.
    """

    file: Path
    line: int
    key: str
    severity: Severity
    sentence: str


@dataclass
class Report:
    """What was found, and how far the records could be checked.

    ``follow``: the score was computed again and is the same; ``grouped``: that of a group, from its tasks. Not checked so
    far: ``no_rule`` has samples but no known way from them to the score, ``no_samples`` has none here, ``no_score`` is
    invalid and says so. ``wrong``: records with an error, which are in none of the other counts. ``no_digest``: records of
    an older form, whose content nothing vouches for. ``foreign``: results of other tools, of which scores and samples are
    checked, and nothing else can be.
    """

    findings: list[Finding] = field(default_factory=list)
    records: int = 0
    follow: int = 0
    grouped: int = 0
    no_rule: int = 0
    no_samples: int = 0
    no_score: int = 0
    no_digest: int = 0
    foreign: int = 0
    wrong: int = 0

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def sentence(self) -> str:
        """Return the whole in one line."""
        told = (
            (self.follow, "follows from its samples", "follow from their samples"),
            (self.grouped, "is a group that follows from its tasks", "are groups that follow from their tasks"),
            (
                self.no_rule,
                "has a score that cannot be computed again here",
                "have a score that cannot be computed again here",
            ),
            (
                self.no_samples,
                "has no samples here to be checked against",
                "have no samples here to be checked against",
            ),
            (self.no_score, "is marked invalid", "are marked invalid"),
            (self.wrong, "does not follow", "do not follow"),
            (
                self.foreign,
                "was measured by another tool, whose data, model, seeds and code nothing here can check",
                "were measured by other tools, whose data, models, seeds and code nothing here can check",
            ),
            (self.no_digest, "is of an older form without digest", "are of an older form without digest"),
        )
        parts = [f"{count} {one if count == 1 else many}" for count, one, many in told if count or many == told[0][2]]
        return f"{counted(self.records, 'record')}: {'; '.join(parts)}"


def check(reading: Reading, root: Path) -> list[Finding]:
    """Return what does not follow in the records that were read from ``root``; see ``examine``."""
    return examine(reading, root).findings


def examine(reading: Reading, root: Path, *, needs_samples: bool = True, tells_doubles: bool = True) -> Report:
    """Check every record of ``reading`` against everything that should give it.

    Args:
        reading: as ``ledger.read(root)`` gives it.
        root: the file or folder it was read from.
        needs_samples: a record that names a sample file which is not there is an error; without, it is counted.
        tells_doubles: off where measurements that stand twice are told in another way.
    """
    return _Examination(reading, root, needs_samples=needs_samples, tells_doubles=tells_doubles).report()


def removed(old: Path, new: Path) -> list[Finding]:
    """Return what stood in the ledgers below ``old``, an earlier copy, and does not stand as it was below ``new``.

    A chain shows lines that are missing before others, not those that were cut off at the end, or a chain made anew.
    """
    findings = []
    for file in ledger.record_files(old):
        same = new / file.relative_to(old) if old.is_dir() else new
        if not same.is_file():
            findings.append(Finding(same, 0, "", "error", f"the file was in {printable(old)} and is gone"))
            continue
        is_as_it_was = _Since(file, same)
        try:
            number = _first_that_differs(file, same, is_as_it_was)
        except HarnessError as error:
            findings.append(Finding(same, 0, "", "error", str(error)))
            continue
        if number:
            sentence = f"it is not what stood there in {printable(file)}: a ledger only grows"
            findings.append(Finding(same, number, "", "error", sentence))
    return findings


def _first_that_differs(before: Path, after: Path, is_as_it_was: Callable[[int], bool]) -> int:
    """Return the number of the first line that is another now, 0 where all stand as they stood."""
    pairs = zip_longest(ledger.raw_lines(before), ledger.raw_lines(after))
    for number, (then, now) in enumerate(pairs, start=1):
        if then is not None and then[1].rstrip() != (now[1] if now else b"").rstrip() and not is_as_it_was(number):
            return number
    return 0


class _Since:
    """Says of a line that reads otherwise in an earlier copy whether it is the same record: made short since, or not."""

    def __init__(self, before: Path, after: Path) -> None:
        self._files, self._lines = (before, after), list[dict[int, Line]]()

    def __call__(self, number: int) -> bool:
        if not self._lines:  # most copies are the same to the byte, and none of their lines is parsed
            self._lines = [{line.origin.line: line for line in ledger.lines(file)} for file in self._files]
        before, after = (lines.get(number) for lines in self._lines)
        if before is None or after is None or before.content is None or after.content is None:
            return False
        is_same = before.record is not None and before.record == after.record
        return is_same and all(
            before.content.get(name) == after.content.get(name) for name in ("key", "digest", "chain")
        )


class _Examination:
    """The checks, each adding to one list of findings."""

    def __init__(self, reading: Reading, root: Path, *, needs_samples: bool, tells_doubles: bool) -> None:
        self._records, self._origins = reading.records, reading.origins
        self._problems, self._root = reading.bad, root
        self._needs_samples, self._tells_doubles = needs_samples, tells_doubles
        self._findings: list[Finding] = []
        self._wrong: set[int] = set()
        self._state: dict[int, str] = {}
        self._digested: set[int] = set()

    def report(self) -> Report:
        self._add_problems()
        self._check_files()
        for number, record in enumerate(self._records):
            self._add(number, claims.doubts(record))
        self._check_samples()
        self._check_groups()
        for number, doubt in following.disagreements(self._records, self._origins):
            self._add(number, [doubt])
        for number, doubt in following.doubles(self._records, self._origins) if self._tells_doubles else ():
            self._add(number, [doubt])
        found = Report(findings=sorted(self._findings, key=lambda f: (str(f.file), f.line)), records=len(self._records))
        for number in range(len(self._records)):
            state = self._state.get(number, "no_samples") if self._records[number].value is not None else "no_score"
            name = "wrong" if number in self._wrong else state
            setattr(found, name, getattr(found, name) + 1)
        found.foreign = sum(record.foreign is not None for record in self._records)
        found.no_digest = len(self._records) - len(self._digested) - found.foreign
        return found

    def _add(self, number: int, doubts: Iterable[Doubt]) -> None:
        origin, key = self._origins[number], self._records[number].key()
        for severity, sentence in doubts:
            self._findings.append(Finding(origin.file, origin.line, key, severity, sentence))
            if severity == "error":
                self._wrong.add(number)

    def _add_problems(self) -> None:
        for problem in self._problems:
            origin = problem.origin
            self._findings.append(Finding(origin.file, origin.line, "", "error", problem.sentence))

    def _check_files(self) -> None:
        """Check what stands beside the fields of each line: digest, key and chain."""
        numbers = {(origin.file, origin.line): number for number, origin in enumerate(self._origins)}
        of_ours = (o.file for o, record in zip(self._origins, self._records, strict=True) if record.foreign is None)
        for file in dict.fromkeys(of_ours):
            for line, content, sentence in _links(file):
                number = numbers.get((file, line))
                if sentence:
                    self._findings.append(Finding(file, line, str(content.get("key", ""))[:16], "error", sentence))
                    self._wrong |= {number} if number is not None else set()
                if number is None:
                    continue
                if "digest" in content:
                    self._digested.add(number)
                key = self._records[number].key()
                if content.get("key", key) != key and "digest" in content:
                    self._add(
                        number, [("error", f"its key is {printable(content['key'])[:40]}, its fields give {key}")]
                    )

    def _check_samples(self) -> None:
        """Check records against their sample files, each of which is read once."""
        by_file: dict[Path, list[int]] = defaultdict(list)
        for number, record in enumerate(self._records):
            path = samples.find(record, self._origins[number].file)
            if path is not None:
                by_file[path].append(number)
            elif record.samples is not None and self._needs_samples and number in self._digested:
                name = printable(record.samples.path)
                self._add(number, [("error", f"its samples are not here ({name})")])
        seen: dict[str, sampled.Sampled] = {}
        for path, numbers in by_file.items():
            try:
                found = sampled.gather(path, [self._records[number] for number in numbers])
            except HarnessError as error:
                for number in numbers:
                    self._add(number, [("error", f"its samples cannot be read: {error}")])
                continue
            for number in numbers:
                verdict = following.from_samples(self._records[number], found)
                self._state[number] = verdict.state
                self._add(number, verdict.doubts)
            found.values.clear()
            seen[found.sha256] = found
        for number, doubt in following.copies(self._records, seen):
            self._add(number, [doubt])

    def _check_groups(self) -> None:
        for number, tasks, missing in following.tasks_of_groups(self._records, self._origins):
            verdict = following.from_tasks(self._records[number], [self._records[task] for task in tasks])
            self._state[number] = verdict.state
            self._add(number, verdict.doubts)
            if missing:
                names = ", ".join(map(printable, missing[:5]))
                self._add(number, [("error", f"records of its tasks are not here: {names}")])


def chain_breaks(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of each line whose chain value does not follow from the line before, with what is wrong."""
    yield from ((line, sentence) for line, _, sentence in _links(file) if sentence)


def _links(file: Path) -> Iterator[tuple[int, Mapping[str, Any], str | None]]:
    """Yield number and content of each line, with what is wrong with its place in the chain."""
    last, is_chained = "", False
    for number, content in _contents(file):
        chain, sentence = content.get("chain"), None
        if chain is not None and chain != ledger.next_chain(last, str(content.get("digest"))):
            sentence = (
                "its chain value does not follow from the line before: a line was removed, moved, edited or put in"
                if number > 1
                else "the ledger does not begin with this line: lines before it were removed or moved"
            )
        elif chain is None and is_chained:
            sentence = "it carries no chain value in a ledger whose lines do: it was put in by hand"
        is_chained = is_chained or chain is not None
        last = str(chain or "")
        yield number, content, sentence


def _contents(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        for number, raw in ledger.raw_lines(file):
            text = raw.strip().removeprefix(ledger.BOM)
            if not text:
                continue
            try:
                content = json.loads(text)
            except (ValueError, RecursionError):
                content = None  # told by the reading already
            yield number, content if isinstance(content, dict) else {}
    except HarnessError:  # told by the reading, too
        return
