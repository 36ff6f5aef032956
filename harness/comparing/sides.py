"""Which records stand on a side of a comparison: those at a path, those a selector names, or both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.records import ledger
from harness.records.grouping import Keys
from harness.records.labels import method_label
from harness.records.record import Record

# Words of a selector that are no options of a method.
FIELDS: dict[str, Callable[[Record], Any]] = {
    "method": lambda r: r.method.name,
    "plugin": lambda r: r.plugin.name,
    "version": lambda r: r.plugin.version,
    "code": lambda r: r.plugin.code_digest,
    "model": lambda r: r.model.name,
    "quantization": lambda r: r.model.quantization,
    "dtype": lambda r: r.model.dtype,
    "seed": lambda r: r.seeds.random,
    "run": lambda r: r.run,
}
# Fields that hold digests, of which the beginning is enough.
DIGESTS = {"code", "model digest", "inputs"}
MOST_DIFFERENCES = 4


@dataclass(frozen=True, slots=True)
class Sourced:
    """A record, and the file it was read from."""

    record: Record
    file: Path


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
        self._read: dict[Path, list[Sourced]] = {}

    def records(self, path: Path) -> list[Sourced]:
        """Return the records at ``path``, of two measurements with the same key the later one."""
        if path not in self._read:
            reading = ledger.read(path)
            self.problems += reading.problems
            self.passed_over += reading.passed_over
            keys, newest = Keys(), dict[tuple[Any, str, str], Sourced]()
            for record, origin in zip(reading.records, reading.origins, strict=True):
                key = (keys.run(record), record.metric.name, record.metric.filter)
                newest[key] = Sourced(record, origin.file)
            self._read[path] = list(newest.values())
        return self._read[path]


def find_sides(words: Sequence[str], pool: Pool) -> list[Side]:
    """Return the sides that ``words`` name, each once, in their order; ``X@Y`` gives Y, then X.

    Raises:
        HarnessError: a path or selector fits no record or several methods, or there are fewer than two sides.
    """
    sides: dict[str, Side] = {}
    for word in words:
        for part in _parts(word):
            sides.setdefault(part, _side(part, pool))
    found = list(sides.values())
    same = next(
        ((found[i], found[j]) for i in range(len(found)) for j in range(i) if _is_same(found[i], found[j])), None
    )
    if same is not None:
        raise HarnessError(f"'{printable(same[1].label)}' and '{printable(same[0].label)}' are the same records")
    if len(found) < 2:
        inside = configurations(found[0].records if found else [])
        raise HarnessError(
            f"a comparison takes two sides, and '{printable(' '.join(words))}' is one{_and_now(inside)}; give another, "
            "as in `harness compare baseline METHOD` or `harness compare METHOD@baseline`"
        )
    return found


def configurations(records: Sequence[Sourced]) -> dict[str, list[Sourced]]:
    """Group records by what makes a side: method, options, code and model."""
    groups: dict[str, list[Sourced]] = {}
    for sourced in records:
        content = json.dumps(_description(sourced.record), sort_keys=True, default=str)
        groups.setdefault(content, []).append(sourced)
    return groups


def _is_same(a: Side, b: Side) -> bool:
    """Whether two names gave the same records: as many of one method, beginning with the same one."""
    ours, theirs = a.records[0], b.records[0]
    is_one_file = ours.file == theirs.file or ours.file.resolve() == theirs.file.resolve()
    return len(a.records) == len(b.records) and is_one_file and ours.record.key() == theirs.record.key()


def _parts(word: str) -> list[str]:
    """Return the sides one word of the command line names."""
    if "@" not in word or Path(word).exists() or _split(word)[0] is not None:
        return [word]
    method, _, against = word.rpartition("@")
    if not method or not against:
        raise HarnessError(f"'{printable(word)}' has nothing on one side of its @; write it as METHOD@baseline")
    return [against, method]


def _split(word: str) -> tuple[Path | None, str]:
    """Return the path and the selector in ``word``; the longest path that exists counts."""
    if Path(word).exists():
        return Path(word), ""
    for position in range(len(word) - 1, 0, -1):
        if word[position] == ":" and Path(word[:position]).exists():
            return Path(word[:position]), word[position + 1 :]
    return None, word


def _side(word: str, pool: Pool) -> Side:
    path, selector = _split(word)
    if path is None and ("/" in word or word.endswith(".jsonl")) and "=" not in word:
        raise HarnessError(f"no records at '{printable(word)}': there is no such file or folder")
    place = path or pool.folder
    records = pool.records(place)
    if not records:
        raise HarnessError(f"there are no records in '{printable(place)}'; name a folder of results with --records")
    terms = [term.strip() for term in selector.split(",") if term.strip()]
    options = {option for sourced in records for option in sourced.record.method.options}
    _check_names(terms, options)
    chosen = [sourced for sourced in records if all(_fits(sourced.record, term, options) for term in terms)]
    if not chosen:
        raise HarnessError(_nothing(word, terms, records, place, options))
    groups = configurations(chosen)
    if len(groups) > 1:
        raise HarnessError(_ambiguous(word, groups, place, has_selector=bool(terms)))
    named = frozenset(term.partition("=")[0] for term in terms if "=" in term)
    return Side(word, tuple(chosen), named)


def _check_names(terms: Sequence[str], options: Set[str]) -> None:
    known = options | set(FIELDS)
    for name, equals, _ in (term.partition("=") for term in terms):
        if equals and name not in known:
            raise HarnessError(f"no record has an option '{printable(name)}'; {suggestion(name, known, most=20)}")


def _fits(record: Record, term: str, options: Set[str]) -> bool:
    """Whether a record is what one part of a selector says; ``options``: the names there are in the folder."""
    name, equals, wanted = term.partition("=")
    if not equals:
        return term in {record.method.name, record.plugin.name, method_label(record)}
    if name in options:
        return name in record.method.options and _is_value(record.method.options[name], wanted)
    value = FIELDS[name](record)
    return _is_value(value, wanted) or (name in DIGESTS and len(wanted) > 3 and str(value).startswith(wanted))


def _is_value(value: Any, wanted: str) -> bool:
    """Whether an option's value is the one typed: as text, or the same number."""
    if _text(value).lower() == wanted.lower():
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(wanted) == value
    except ValueError:
        return False


def _description(record: Record) -> dict[str, Any]:
    """Return what tells one side from another, in the words of a selector where it has one."""
    fields = ("method", "plugin", "version", "code", "model", "quantization", "dtype")
    facts = {name: FIELDS[name](record) for name in fields}
    facts |= {f"{name}": value for name, value in record.method.options.items()}
    return facts | {"inputs": record.method.inputs, "model digest": record.model.digest}


def _ambiguous(word: str, groups: dict[str, list[Sourced]], place: Path, *, has_selector: bool) -> str:
    described = [_description(group[0].record) for group in groups.values()]
    names = dict.fromkeys(name for facts in described for name in facts)
    values = {name: dict.fromkeys(_text(facts.get(name, "")) for facts in described) for name in names}
    differing = {name: list(found) for name, found in values.items() if len(found) > 1}
    if "method" in differing:  # other methods have other options
        differing = {"method": differing["method"]}
    shown = list(differing.items())[:MOST_DIFFERENCES]
    told = "; ".join(f"{name}: {', '.join(_short(v, name) for v in found[:6])}" for name, found in shown)
    first = next(iter(differing))
    value = next(v for v in differing[first] if v)
    term = value if first == "method" else f"{first}={_short(value, first)}"
    start = f"{word}," if has_selector else f"{word}:"
    return (
        f"'{printable(word)}' names {len(groups)} sides in '{printable(place)}', which differ in {printable(told)}; "
        f"say which, as in '{printable(start + term)}'"
    )


def _nothing(word: str, terms: Sequence[str], records: Sequence[Sourced], place: Path, options: Set[str]) -> str:
    for term in terms:
        name, equals, wanted = term.partition("=")
        known = set(_values(name, records)) if equals else set(_names(records))
        if not any(_fits(sourced.record, term, options) for sourced in records):
            what = f"{name} '{wanted}'" if equals else f"method or plugin '{term}'"
            return f"no record in '{printable(place)}' has {printable(what)}; {suggestion(wanted or term, known)}"
    return f"no record in '{printable(place)}' is all of '{printable(word)}'; each part fits some, so leave one out"


def _values(name: str, records: Sequence[Sourced]) -> Iterator[str]:
    for sourced in records:
        options = sourced.record.method.options
        if name in options:
            yield _text(options[name])
        elif name in FIELDS:
            yield _text(FIELDS[name](sourced.record))


def _names(records: Sequence[Sourced]) -> Iterator[str]:
    for sourced in records:
        yield sourced.record.method.name
        if sourced.record.plugin.name:
            yield sourced.record.plugin.name


def _and_now(groups: dict[str, list[Sourced]]) -> str:
    return f" ({method_label(next(iter(groups.values()))[0].record)})" if groups else ""


def _short(value: str, name: str) -> str:
    return value[:12] if name in DIGESTS else value


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
