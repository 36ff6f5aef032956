"""Which records stand on a side of a comparison: those at a path, those a selector names, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.comparing.selectors import Selector, Sourced, configurations, model_of, model_told
from harness.errors import HarnessError
from harness.names import printable
from harness.records import ledger
from harness.records.grouping import Keys
from harness.records.labels import method_label
from harness.records.record import Record


@dataclass(frozen=True, slots=True)
class Side:
    """One method with one set of options on one model, in all its seeds and tasks.

    Attributes:
        label: as the user named it.
        named: the fields its selector names.
    """

    label: str
    records: tuple[Sourced, ...]
    named: frozenset[str] = frozenset()

    @property
    def first(self) -> Record:
        """Any of the records, for what they share."""
        return self.records[0].record


class Pool:
    """Reads each folder of records once."""

    def __init__(self, folder: Path) -> None:
        """Remember where a selector without a path looks."""
        self.folder = folder
        self.problems: list[str] = []
        self.passed_over: list[str] = []
        self._readings: dict[Path, ledger.Reading] = {}
        self._read: dict[Path, list[Sourced]] = {}

    def records(self, path: Path) -> list[Sourced]:
        """Return the records at ``path``, of two measurements with the same key the later one."""
        if path not in self._read:
            reading = self._reading(path)
            self.problems += reading.problems
            self.passed_over += reading.passed_over
            keys, newest = Keys(), dict[tuple[Any, str, str], Sourced]()
            for record, origin in zip(reading.records, reading.origins, strict=True):
                key = (keys.run(record), record.metric.name, record.metric.filter)
                newest[key] = Sourced(record, origin.file)
            self._read[path] = list(newest.values())
        return self._read[path]

    def is_place(self, path: Path) -> bool:
        """Return whether there is something at ``path`` that can hold a side: a file, or a folder with records in it."""
        if path.is_dir():
            reading = self._reading(path)
            return bool(reading.records or reading.problems)
        return path.exists()

    def _reading(self, path: Path) -> ledger.Reading:
        if path not in self._readings:
            self._readings[path] = ledger.read(path)
        return self._readings[path]


def find_sides(words: Sequence[str], pool: Pool) -> list[Side]:
    """Return the sides that ``words`` name, each once, in their order; ``X@Y`` gives Y on the model of X, then X.

    Raises:
        HarnessError: a path or selector fits no record or several methods, or there are fewer than two sides.
    """
    sides: dict[str, Side] = {}
    for word in words:
        for side in _sides(word, pool, words):
            known = sides.setdefault(side.label, side)
            if known.records != side.records:
                raise HarnessError(
                    f"'{printable(side.label)}' is on {model_told(known.first)} for one side and on {model_told(side.first)} "
                    "for another; compare them one at a time"
                )
    found = list(sides.values())
    same = next(
        ((found[i], found[j]) for i in range(len(found)) for j in range(i) if _is_same(found[i], found[j])), None
    )
    if same is not None:
        raise HarnessError(f"'{printable(same[1].label)}' and '{printable(same[0].label)}' are the same records")
    if len(found) < 2:
        raise HarnessError(_one_side(words, found, pool))
    return found


def _sides(word: str, pool: Pool, words: Sequence[str]) -> list[Side]:
    """Return the sides one word of the command line names."""
    if "@" not in word or pool.is_place(Path(word)) or _split(word, pool)[0] is not None:
        return [_side(word, pool, words)]
    method, _, against = word.rpartition("@")
    if not method or not against:
        raise HarnessError(f"'{printable(word)}' has nothing on one side of its @; write it as METHOD@baseline")
    side = _side(method, pool)
    return [_side(against, pool, beside=side), side]


def candidates(word: str, pool: Pool) -> tuple[Selector, list[list[Sourced]]]:
    """Return what selects a word's records, and these by the side that they make.

    Raises:
        HarnessError: nothing fits the word.
    """
    selector, chosen = _chosen(word, pool)
    return selector, list(configurations(chosen).values())


def _chosen(word: str, pool: Pool) -> tuple[Selector, list[Sourced]]:
    path, terms = _split(word, pool)
    place = path or pool.folder
    if path is None and ("/" in word or word.endswith(".jsonl")) and "=" not in word:
        if Path(word).is_dir():
            raise HarnessError(f"'{printable(word)}' is no folder of results: there are no records in it")
        raise HarnessError(f"no records at '{printable(word)}': there is no such file or folder")
    selector = Selector(terms, place, pool.records(place), path is not None)
    if not selector.records:
        raise HarnessError(f"there are no records in '{printable(place)}'; name a folder of results with --records")
    try:
        return selector, selector.chosen()
    except HarnessError as error:
        if path is None and Path(word).is_dir():
            raise HarnessError(f"'{printable(word)}' is a folder without records, and {error}") from error
        raise


def _side(word: str, pool: Pool, words: Sequence[str] = (), *, beside: Side | None = None) -> Side:
    """Return the side that a word names.

    Args:
        words: all sides of the command line, for advice.
        beside: only what is on the model of this one fits.
    """
    selector, chosen = _chosen(word, pool)
    if beside is not None:
        models = {model_of(sourced.record) for sourced in beside.records}
        fitting = [sourced for sourced in chosen if model_of(sourced.record) in models]
        if not fitting:
            raise HarnessError(_none_beside(word, beside, chosen, selector.place))
        chosen = fitting
    groups = list(configurations(chosen).values())
    if len(groups) > 1:
        groups = _unnamed_first(groups, [other for other in words if other != word], pool)
        raise HarnessError(selector.ambiguous(groups, _beside_others(word, words, pool)))
    named = frozenset(term.partition("=")[0] for term in selector.terms if "=" in term)
    return Side(word, tuple(chosen), named)


def _unnamed_first(groups: Sequence[list[Sourced]], others: Sequence[str], pool: Pool) -> list[list[Sourced]]:
    """Return groups with those behind that other words name: what is advised is another side."""
    taken = set[str]()
    for other in others:
        try:
            _, [named] = candidates(other, pool)
        except (HarnessError, ValueError):
            continue
        taken |= set(configurations(named))
    return sorted(groups, key=lambda group: not taken.isdisjoint(configurations(group)))


def _split(word: str, pool: Pool) -> tuple[Path | None, str]:
    """Return the path and the selector in ``word``; the longest path with records counts."""
    if pool.is_place(Path(word)):
        return Path(word), ""
    for position in range(len(word) - 1, 0, -1):
        if word[position] == ":" and pool.is_place(Path(word[:position])):
            return Path(word[:position]), word[position + 1 :]
    return None, word


def _is_same(a: Side, b: Side) -> bool:
    """Whether two names gave the same records: as many of one method, beginning with the same one."""
    ours, theirs = a.records[0], b.records[0]
    is_one_file = ours.file == theirs.file or ours.file.resolve() == theirs.file.resolve()
    return len(a.records) == len(b.records) and is_one_file and ours.record.key() == theirs.record.key()


def _none_beside(word: str, beside: Side, chosen: Sequence[Sourced], place: Path) -> str:
    """Return the sentence on a side that was never run on the model of another."""
    there = list(dict.fromkeys(model_told(sourced.record) for sourced in chosen))
    advice = "run that with --with_baseline" if word == "baseline" else "run it on that model"
    return (
        f"'{printable(word)}' was not run on the model of '{printable(beside.label)}' ({model_told(beside.first)}) in "
        f"'{printable(place)}', but on {' and '.join(there[:3])}; {advice}, or name both sides by themselves"
    )


def _beside_others(word: str, words: Sequence[str], pool: Pool) -> list[str]:
    """Return advice to take a side on the model of another one of the command line, where that names one side."""
    found = []
    for other in words:
        if other != word and "@" not in other:
            try:
                _side(word, pool, beside=_side(other, pool))
            except HarnessError:
                continue
            found.append(f"take that on the model of the other side: '{printable(f'{other}@{word}')}'")
    return found[:1]


def _one_side(words: Sequence[str], found: Sequence[Side], pool: Pool) -> str:
    """Return the sentence on a command line that names one side, with another that it can be compared with."""
    said = f" ({method_label(found[0].first)})" if found else ""
    advice = "`harness compare baseline METHOD` or `harness compare METHOD@baseline`"
    if found:
        others = dict.fromkeys(
            method_label(s.record) for s in pool.records(pool.folder) if s.record.method != found[0].first.method
        )
        for name in sorted(others, key=lambda name: name != "baseline"):
            tried = f"{found[0].label}@{name}" if name == "baseline" else f"{name}@{found[0].label}"
            try:
                find_sides([tried], pool)
            except HarnessError:
                continue
            advice = f"`harness compare {printable(tried)}`"
            break
    return (
        f"a comparison takes two sides, and '{printable(' '.join(words))}' is one{said}; give another, as in {advice}"
    )
