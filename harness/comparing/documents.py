"""The documents behind two scores: their values side by side, and the answers that changed most."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from harness.comparing.selectors import Sourced
from harness.comparing.sides import Side
from harness.errors import HarnessError
from harness.names import printable
from harness.records import answers, samples
from harness.records.aggregation import NotRecomputableError, agree, document_values
from harness.records.ledger import Origin
from harness.records.record import Record
from harness.records.statistics import Values
from harness.verifying.contradictions import Contradictions

NO_FILES = "no sample files beside the records"
# Of a prompt the end is shown, which asks; of an answer the beginning.
QUESTION_CHARACTERS = 300
ANSWER_CHARACTERS = 300
MOST_NUMBERS = 4
SEEDS_JOINT = " / "


@dataclass(frozen=True, slots=True)
class Documents:
    """What the documents of one task say of one metric, averaged over the seeds of each side.

    ``first`` and ``second`` are (N,), in the order of ``keys``; ``scores`` are the two scores of these documents.
    ``shared`` says how many documents of how many were left when the data differ, and is empty otherwise.
    """

    keys: tuple[str, ...]
    first: Values
    second: Values
    scores: tuple[float, float]
    aggregation: str
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One document whose score changed, with what both sides answered; long texts are cut."""

    document: str
    question: str
    target: str
    first_answer: str
    second_answer: str
    first_score: float
    second_score: float


class Columns:
    """The values of the documents by metric: each sample file is read once, if its records were written with it."""

    def __init__(self) -> None:
        self._read: dict[Path, dict[tuple[str, str], dict[str, Any]]] = {}

    def values(self, sourced: Sourced) -> dict[str, Any]:
        """Return the value of the record's metric for each document, in the order of the file.

        Raises:
            NotRecomputableError: there is no sample file, it cannot be read, or lacks the metric.
            HarnessError: the file was changed.
        """
        record, path = sourced.record, self.path(sourced)
        if path not in self._read:
            self._read[path] = self._columns(record, path)
        values = self._read[path].get((record.metric.name, record.metric.filter))
        if not values:
            raise NotRecomputableError(f"the sample file has no values of {printable(record.metric.name)}")
        return values

    def path(self, sourced: Sourced) -> Path:
        """Return the record's sample file."""
        path = samples.find(sourced.record, sourced.file)
        if path is None:
            raise NotRecomputableError(NO_FILES)
        return path

    def _columns(self, record: Record, path: Path) -> dict[tuple[str, str], dict[str, Any]]:
        digest = hashlib.sha256()
        try:
            columns = _columns(path, record.counts.docs, digest)
        except HarnessError as error:
            raise NotRecomputableError(str(error)) from error
        if record.samples is not None and digest.hexdigest() != record.samples.sha256:
            raise HarnessError(
                f"'{printable(path)}' is not the sample file that the records of task '{printable(record.task.name)}' were "
                "written with, its digest is another; `harness verify` says what follows and what does not"
            )
        return columns


class Doubts:
    """Says of a record of a side what contradicts its score."""

    def __init__(self, sides: Sequence[Side]) -> None:
        """Take in the records of all sides, and read nothing yet."""
        self._places: dict[int, tuple[Contradictions, int]] = {}
        for side in sides:
            records = [sourced.record for sourced in side.records]
            found = Contradictions(records, [Origin(sourced.file, 0) for sourced in side.records])
            self._places |= {id(sourced): (found, number) for number, sourced in enumerate(side.records)}

    def of(self, sourced: Sourced) -> str:
        """Return the sentence, empty where nothing does."""
        found, number = self._places[id(sourced)]
        return found.of(number)


def paired_documents(
    first: Sequence[Sourced], second: Sequence[Sourced], columns: Columns, *, allow_drift: bool
) -> Documents:
    """Return the documents of one metric on both sides; the records of a side are its seeds.

    Args:
        allow_drift: where the documents differ, use those that both sides have, known by their content.

    Raises:
        NotRecomputableError: this cannot be done; the message says why.
        HarnessError: the documents differ, or a file is damaged.
    """
    found = [[columns.values(sourced) for sourced in side] for side in (first, second)]
    for side, seeds in zip((first, second), found, strict=True):
        if any(values.keys() != seeds[0].keys() for values in seeds):
            raise NotRecomputableError(f"the seeds of {printable(side[0].record.method.name)} have other documents")
    ours, theirs = found[0][0], found[1][0]
    twins = {key: key for key in ours if key in theirs}
    shared = ""
    if len(twins) < max(len(ours), len(theirs)):
        if not allow_drift:
            raise HarnessError(_others(first[0].record, ours, theirs, len(twins)))
        twins = _by_content(ours, theirs)
        shared = f"{len(twins):,} shared of {len(ours):,} and {len(theirs):,} documents"
        if not twins:
            raise HarnessError(f"task '{printable(first[0].record.task.name)}' has no document that both sides have")
    a, score_a, aggregation = _averaged(first, found[0], list(twins), is_part=len(twins) < len(ours))
    b, score_b, _ = _averaged(second, found[1], list(twins.values()), is_part=len(twins) < len(theirs))
    return Documents(tuple(twins), a, b, (score_a, score_b), aggregation, shared)


def _others(record: Record, ours: Mapping[str, Any], theirs: Mapping[str, Any], agreeing: int) -> str:
    """Return the sentence on two sample files with other documents: how many both have, and how many only seem the same."""
    names = [{key.partition(":")[0] for key in keys} for keys in (ours, theirs)]
    alike = len(names[0] & names[1]) - agreeing
    under = f", and {alike:,} are other ones under the same number" if alike > 0 else ""
    unscored = ""
    if min(len(ours), len(theirs)) == agreeing and record.foreign is not None:
        unscored = f" (documents without {printable(record.metric.name)} do not count)"
    return (
        f"the sample files of task '{printable(record.task.name)}' hold other documents: {len(ours):,} and {len(theirs):,}, of "
        f"which {agreeing:,} agree{under}{unscored}; --allow-drift compares the documents both have"
    )


def grouped_documents(members: Sequence[Documents], values: tuple[float, float]) -> Documents:
    """Return the documents of a group, weighted so that their mean is the group's score, as lm-eval makes it.

    Args:
        members: one for each task below the group.
        values: the group's recorded score on both sides, which has to come out.

    Raises:
        NotRecomputableError: the tasks do not give the group's score.
    """
    if any(part.aggregation != "mean" for part in members):
        raise NotRecomputableError("the scores of its tasks are no means of documents")
    total = sum(len(part.keys) for part in members)
    alike = [total / (len(members) * len(part.keys)) for part in members]
    for weights in ([1.0] * len(members), alike):
        first, second = (
            numpy.concatenate([getattr(part, side) * w for part, w in zip(members, weights, strict=True)])
            for side in ("first", "second")
        )
        scores = float(first.mean()), float(second.mean())
        if all(agree(value, score, [1.0]) for value, score in zip(values, scores, strict=True)):
            keys = tuple(f"{number}:{key}" for number, part in enumerate(members) for key in part.keys)
            return Documents(keys, first, second, scores, "mean")
    raise NotRecomputableError("the tasks below it do not give its score")


def changes(
    documents: Documents, first: Sequence[Sourced], second: Sequence[Sourced], columns: Columns, *, most: int
) -> tuple[Change, ...]:
    """Return the documents whose score changed most, the largest change first, with both answers.

    Of several seeds the answers stand in the order of the seeds; one that all of them gave stands once.
    """
    differences = numpy.abs(documents.second - documents.first)
    order = [int(i) for i in numpy.argsort(-differences, kind="stable")[:most] if differences[i] > 0]
    wanted = {documents.keys[i]: i for i in order}
    sides = [[_rows(columns.path(sourced), sourced.record, wanted) for sourced in side] for side in (first, second)]
    found = []
    for key, i in wanted.items():
        ours, theirs = ([rows.get(key) or rows.get(_content(key)) or {} for rows in side] for side in sides)
        texts = [SEEDS_JOINT.join(_alike([_answer(row) for row in rows])) for rows in (ours, theirs)]
        scores = float(documents.first[i]), float(documents.second[i])
        found.append(Change(key.split(":")[0], _question(ours[0]), _target(ours[0]), texts[0], texts[1], *scores))
    return tuple(found)


def _alike(texts: list[str]) -> list[str]:
    return texts[:1] if len(set(texts)) == 1 else texts


def _columns(path: Path, most_docs: int, digest: Any) -> dict[tuple[str, str], dict[str, Any]]:
    columns: dict[tuple[str, str], dict[str, Any]] = {}
    for row in samples.rows(path, most_docs=most_docs, digest=digest):
        key, chosen = samples.document_key(row), str(row.get("filter", "none"))
        for metric, value in answers.metrics(row).items():
            columns.setdefault((metric, chosen), {})[key] = value
    return columns


def _averaged(
    side: Sequence[Sourced], found: Sequence[Mapping[str, Any]], keys: Sequence[str], *, is_part: bool
) -> tuple[Values, float, str]:
    """Return values and score of the documents ``keys``, averaged over seeds, and the aggregation that makes the score."""
    values, scores, aggregation = [], [], "mean"
    for sourced, of_key in zip(side, found, strict=True):
        record = sourced.record
        assert record.value is not None
        column, score, aggregation = document_values(list(of_key.values()), record.metric.aggregation, record.value)
        if is_part:
            column, score, _ = document_values([of_key[key] for key in keys], aggregation, None)
        elif list(of_key) != list(keys):
            place = {key: number for number, key in enumerate(of_key)}
            column = column[[place[key] for key in keys]]
        values.append(column)
        scores.append(score)
    return numpy.mean(values, axis=0), float(numpy.mean(scores)), aggregation


def _by_content(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """Return our keys and theirs of the documents with the same content, leaving out what stands there twice."""
    places: list[dict[str, list[str]]] = [{}, {}]
    for place, keys in zip(places, (ours, theirs), strict=True):
        for key in keys:
            place.setdefault(_content(key), []).append(key)
    twins = {keys[0]: places[1].get(content, []) for content, keys in places[0].items() if len(keys) == 1}
    return {key: found[0] for key, found in twins.items() if len(found) == 1}


def _content(key: str) -> str:
    return key.partition(":")[2]


def _rows(path: Path, record: Record, wanted: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of some documents, by key; by content alone for those whose number is another one here."""
    found: dict[str, dict[str, Any]] = {}
    contents = {_content(key) for key in wanted}
    for row in samples.rows(path):
        key = samples.document_key(row)
        if row.get("filter", "none") == record.metric.filter and _content(key) in contents:
            found[key] = row
            found.setdefault(_content(key), row)
    return found


def _question(row: dict[str, Any]) -> str:
    prompt = answers.prompt(row)
    return prompt if len(prompt) <= QUESTION_CHARACTERS else "…" + prompt[-QUESTION_CHARACTERS:]


def _target(row: dict[str, Any]) -> str:
    number, choices = answers.gold(row), answers.continuations(row)
    return _cut(str(row.get("target", "")) if number is None or len(choices) < 2 else choices[number].text.strip())


def _answer(row: dict[str, Any]) -> str:
    """Return the likeliest choice, the text that was written, or else the log-likelihoods."""
    number, choices = answers.chosen(row), answers.continuations(row)
    if number is not None:
        return _cut(choices[number].text.strip())
    if choices:
        return _cut(", ".join(f"{choice.loglikelihood:.2f}" for choice in choices) + " nats")
    given = row.get("filtered_resps")
    is_text = isinstance(given, list) and len(given) == 1 and isinstance(given[0], str)
    numbers = [] if is_text else list(_numbers_in(given))
    if numbers:
        shown = ", ".join(f"{value:.3f}" for value in numbers[:MOST_NUMBERS])
        return shown + (f", … ({len(numbers)} numbers)" if len(numbers) > MOST_NUMBERS else "")
    return _cut(" | ".join(answers.texts(row)))


def _numbers_in(value: Any) -> Iterator[float]:
    """Yield the numbers of an answer that is lists of them, which a sample file holds as text; none of a text."""
    if isinstance(value, list) and all(isinstance(part, list) for part in value):
        for part in value:
            yield from _numbers_in(part)
        return
    try:
        yield from [float(part) for part in value if isinstance(value, list)]
    except (TypeError, ValueError):
        return


def _cut(text: str) -> str:
    return text if len(text) <= ANSWER_CHARACTERS else text[:ANSWER_CHARACTERS] + "…"
