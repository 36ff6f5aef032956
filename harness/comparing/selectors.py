"""Words that select records: what they fit, and which of them name one side, tried before they are advised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.records.labels import method_label, model_label
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
    "adapter": lambda r: r.settings.model_args.get("peft"),
    "revision": lambda r: r.model.revision,
    "digest": lambda r: r.model.digest,
    "inputs": lambda r: r.method.inputs,
    "seed": lambda r: r.seeds.random,
    "run": lambda r: r.run,
}
# Fields of which the beginning is enough: digests, and names that end with one.
BEGINNINGS = {"code", "digest", "inputs", "run"}
DIGITS_SHOWN = 12
MOST_DIFFERENCES, MOST_VALUES = 4, 6


@dataclass(frozen=True, slots=True)
class Sourced:
    """A record, and the file it was read from."""

    record: Record
    file: Path


@dataclass(frozen=True)
class Selector:
    """Words that select some of the records at a place.

    Attributes:
        words: as the user wrote them, without the place.
        records: all there are, of which some fit.
        is_at_path: the user named the place, too.
    """

    words: str
    place: Path
    records: Sequence[Sourced]
    is_at_path: bool = False

    @property
    def terms(self) -> list[str]:
        """The parts, all of which have to fit."""
        return [term.strip() for term in self.words.split(",") if term.strip()]

    @property
    def options(self) -> Set[str]:
        """The names of all options there are."""
        return {option for sourced in self.records for option in sourced.record.method.options}

    def chosen(self) -> list[Sourced]:
        """Return the records that fit.

        Raises:
            HarnessError: a part names an option that no record has, or none fits; the sentence says what there is.
        """
        terms, options = self.terms, self.options
        known = options | set(FIELDS)
        for name, equals, _ in (term.partition("=") for term in terms):
            if equals and name not in known:
                raise HarnessError(f"no record has an option '{printable(name)}'; {suggestion(name, known, most=20)}")
        found = self._fitting(terms)
        if not found:
            raise HarnessError(self._nothing())
        return found

    def _fitting(self, terms: Sequence[str]) -> list[Sourced]:
        options = self.options
        return [sourced for sourced in self.records if all(_fits(sourced.record, term, options) for term in terms)]

    def _nothing(self) -> str:
        options = self.options
        for term in self.terms:
            name, equals, wanted = term.partition("=")
            known = set(self._values(name)) if equals else set(self._names())
            if not any(_fits(sourced.record, term, options) for sourced in self.records):
                what = f"{name} '{wanted}'" if equals else f"method or plugin '{term}'"
                return (
                    f"no record in '{printable(self.place)}' has {printable(what)}; {suggestion(wanted or term, known)}"
                )
        others = ([other for other in self.terms if other != term] for term in self.terms)
        helping = [",".join(rest) for rest in others if rest and self._fitting(rest)]
        quoted = [f"'{printable(one)}'" for one in helping[:3]] or ["each of them alone"]
        return (
            f"no record in '{printable(self.place)}' is all of '{printable(self.words)}'; each part fits some: there is "
            f"{' and '.join(quoted)}"
        )

    def _values(self, name: str) -> Iterator[str]:
        for sourced in self.records:
            options = sourced.record.method.options
            if name in options:
                yield _text(options[name])
            elif name in FIELDS:
                yield _text(FIELDS[name](sourced.record))

    def _names(self) -> Iterator[str]:
        for sourced in self.records:
            yield sourced.record.method.name
            if sourced.record.plugin.name:
                yield sourced.record.plugin.name

    def ambiguous(self, groups: Sequence[Sequence[Sourced]], more: Sequence[str] = ()) -> str:
        """Return the sentence on words that name several sides: in what these differ, and words that name one.

        Args:
            more: other advice that was tried, each to end the sentence with.
        """
        described = [description(group[0].record) for group in groups]
        differing = _differing(described)
        shown = list(differing.items())[:MOST_DIFFERENCES]
        told = "; ".join(f"{name}: {_listed([_short(v, name) for v in found])}" for name, found in shown)
        advice = [
            *([f"say which, as in '{printable(one)}'"] if (one := self._one_of(groups)) else []),
            *more,
        ] or ["name the folder of a run"]
        return (
            f"'{printable(self.whole)}' names {len(groups)} sides in '{printable(self.place)}', which differ in "
            f"{printable(told)}; {', or '.join(advice)}"
        )

    @property
    def whole(self) -> str:
        """The words, or the place where there are none."""
        return self.words or str(self.place)

    def only(self, group: Sequence[Sourced], groups: Sequence[Sequence[Sourced]]) -> str | None:
        """Return words that name one of the groups that fit, at the same place, None where no words do."""
        if len(groups) == 1:
            return None
        terms = self._telling(group[0].record, groups)
        if terms is None:
            return None
        words = ",".join([*([self.words] if self.words else []), *terms])
        return f"{self.place}:{words}" if self.is_at_path else words

    def _one_of(self, groups: Sequence[Sequence[Sourced]]) -> str | None:
        """Return words that name one of the groups, tried, or else the path of a run that is one."""
        start = self.words if self.words else ""
        for group in groups:
            terms = self._telling(group[0].record, groups)
            if terms is not None:
                words = ",".join([*([start] if start else []), *terms])
                return words if self.words else f"{self.place}:{words}"
        for group in groups:
            folder = group[0].file.parent
            there = [sourced for sourced in self.records if folder in sourced.file.parents]
            if len(configurations(there)) == 1:
                return str(folder)
        return None

    def _telling(self, record: Record, groups: Sequence[Sequence[Sourced]]) -> list[str] | None:
        """Return the terms that leave only the side of ``record`` of those that fit now; None where there are none."""
        own = description(record)
        differing = _differing([description(group[0].record) for group in groups])
        terms: list[str] = []
        left = len(groups)
        for name in differing:
            value = _short(_text(own.get(name)), name)
            term = value if name == "method" else f"{name}={value}"
            if "," in term or term != term.strip() or value == "":
                continue
            found = len(configurations(self._fitting([*self.terms, *terms, term])))
            if 0 < found < left:
                terms, left = [*terms, term], found
            if left == 1:
                return terms
        return None


def configurations(records: Sequence[Sourced]) -> dict[str, list[Sourced]]:
    """Group records by what makes a side: method, options, code and model."""
    groups: dict[str, list[Sourced]] = {}
    for sourced in records:
        content = json.dumps(description(sourced.record), sort_keys=True, default=str)
        groups.setdefault(content, []).append(sourced)
    return groups


def model_of(record: Record) -> str:
    """Return what tells one model from another, quantisation and type of weights included."""
    model = record.model
    return json.dumps([model.name, model.digest, model.quantization, model.dtype, model.tokenizer_digest])


def model_told(record: Record) -> str:
    """Return a model as people name it, with the type of its weights."""
    kind = record.model.dtype if record.model.quantization == "none" else record.model.quantization
    return f"{model_label(record)}, {printable(kind)}"


def _fits(record: Record, term: str, options: Set[str]) -> bool:
    """Whether a record is what one part of a selector says; ``options``: the names there are in the folder."""
    name, equals, wanted = term.partition("=")
    if not equals:
        return term in {record.method.name, record.plugin.name, method_label(record)} or _is_run(record, term)
    if name in options:
        return name in record.method.options and _is_value(record.method.options[name], wanted)
    value = FIELDS[name](record)
    return _is_value(value, wanted) or (name in BEGINNINGS and len(wanted) > 3 and str(value).startswith(wanted))


def _is_run(record: Record, term: str) -> bool:
    """Whether a word is the name of a run, or its beginning with some of the digits behind the last dash."""
    name, dash, digits = (record.run or "").rpartition("-")
    return bool(
        dash and term.startswith(f"{name}-") and term != f"{name}-" and digits.startswith(term[len(name) + 1 :])
    )


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


def description(record: Record) -> dict[str, Any]:
    """Return what tells one side from another, in the words of a selector."""
    fields = ("method", "plugin", "version", "code", "model", "revision", "adapter", "quantization", "dtype")
    facts = {name: FIELDS[name](record) for name in fields}
    facts |= {f"{name}": value for name, value in record.method.options.items()}
    return facts | {name: FIELDS[name](record) for name in ("inputs", "digest")}


def _differing(described: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the values of what is not the same in all descriptions; methods that differ have other options, too."""
    names = dict.fromkeys(name for facts in described for name in facts)
    values = {name: list(dict.fromkeys(_text(facts.get(name, "")) for facts in described)) for name in names}
    differing = {name: found for name, found in values.items() if len(found) > 1}
    if "method" in differing:
        fields = [name for name in differing if name in FIELDS and name not in {"plugin", "version", "code", "inputs"}]
        return {name: differing[name] for name in fields}
    return differing


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:MOST_VALUES]) + (
        f" and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
    )


def _short(value: str, name: str) -> str:
    return value[:DIGITS_SHOWN] if name in BEGINNINGS else value


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
