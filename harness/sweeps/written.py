"""A sweep's file taken apart: what all cells share, the axes in their order, and what is included and excluded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.run.flags import KEY_VALUE
from harness.sweeps import keys, spreading
from harness.sweeps.axes import Axis, Combination, excluded, included, product
from harness.sweeps.checkpoints import check_given, found_axis, is_pattern, placeholders
from harness.sweeps.located import Located

Exclusion = tuple[dict[str, list[Located]], Located]


@dataclass(frozen=True)
class Written:
    """What a file says.

    Attributes:
        at: the whole of it.
        shared: what every cell sets, unless an axis or ``include`` says otherwise.
        axes: in the order of the file; the last varies fastest.
        options: returns the options of the methods that plugins, by these names, offer.
        folder: where its paths begin.
    """

    at: Located
    shared: Combination
    axes: tuple[Axis, ...]
    options: Callable[[Collection[str]], Collection[str]] = field(repr=False)
    folder: Path

    @property
    def entries(self) -> Mapping[str, Located]:
        """Its keys, with their values."""
        return self.at.entries

    @cached_property
    def axis_names(self) -> list[str]:
        """What axes set, in their order."""
        return list(dict.fromkeys(name for axis in self.axes for name in axis.names))

    def combinations(self) -> tuple[list[Combination], list[str]]:
        """Return what each cell sets besides what all share, and sentences on what has no effect.

        Raises:
            HarnessError: too many, none is left, or an entry of ``include`` or ``exclude`` is none.
        """
        spreading.check_size(self.axes, self.at)
        exclusions = list(self._exclusions())
        used: set[int] = set()
        originals = []
        for combination in product(self.axes):
            out = next((n for n, (entry, _) in enumerate(exclusions) if excluded(combination, entry)), None)
            if out is None:
                originals.append(combination)
            else:
                used.add(out)
        inclusions = list(self._inclusions())
        if not self.axes and inclusions:
            originals = []  # without a matrix, each entry is a cell
        made = included(originals, inclusions, self.axis_names)
        if not made:
            raise self.entries["exclude"].mistake("exclude leaves no cell; take something out of it")
        unused = [at for number, (_, at) in enumerate(exclusions) if number not in used]
        return made, [f"{at.where}: this entry of exclude fits no cell, so it leaves nothing out" for at in unused]

    def _names(self) -> keys.Names:
        set_names = {*self.shared, *self.axis_names, *self.included_names}
        return keys.Names(set_names, lambda: self.options(plugins_in(self.at)))

    @property
    def included_names(self) -> list[str]:
        """The dotted names that ``include`` writes as mappings."""
        entries = self.entries["include"].items if "include" in self.entries else []
        pairs = ((name, part) for entry in entries for name, part in entry.entries.items())
        return [f"{name}.{option}" for name, part in pairs if name in KEY_VALUE for option in part.entries]

    def _inclusions(self) -> Iterator[Combination]:
        names = self._names()
        for entry in listed("include", self.entries):
            pairs = [(names.full(_of_cells(name, part), part), part) for name, part in entry.entries.items()]
            yield from spreading.together(_undotted(pairs), entry)

    def _exclusions(self) -> Iterator[Exclusion]:
        names = self._names()
        for entry in listed("exclude", self.entries):
            chosen: dict[str, list[Located]] = {}
            for name, part in entry.entries.items():
                inner = {f"{name}.{option}": value for option, value in part.entries.items()} or {name: part}
                for called, value in inner.items():
                    full = names.full(_of_cells(called, value), value)
                    if full not in self.axis_names:
                        raise value.mistake(
                            f"exclude names '{printable(called)}', which is no axis: {self._axes_text() or 'there is none'}"
                        )
                    chosen[full] = spreading.alternatives(full, value)
            yield chosen, entry

    def _axes_text(self) -> str:
        return ", ".join(keys.short_names(self.axis_names).values())


def take_apart(content: Located, *, folder: Path, options: Callable[[Collection[str]], Collection[str]]) -> Written:
    """Return what a file says, its names and lists checked.

    Args:
        content: the file.
        folder: where its paths begin.
        options: returns the options of the methods that plugins, by these names, offer.

    Raises:
        HarnessError: a key means nothing, a list is empty, something is said twice, or no checkpoint is there.
    """
    entries = content.entries
    template = entries.get("checkpoints")
    braces = placeholders(template) if template is not None else []
    keys.check_top(entries, braces, lambda: options(plugins_in(content)))
    for name in keys.ONCE & entries.keys() - {"methods", "include", "exclude"}:
        keys.once(name, entries[name])
    if {"seed", "seeds"} <= entries.keys():
        raise entries["seeds"].mistake("seed and seeds exclude each other; give one of them")
    shared: Combination = {}
    axes: list[Axis] = []
    for name, value in entries.items():
        if name == "methods":
            axes.append(_methods(value, entries))
        elif template is not None and name in braces and is_pattern(value):
            axes.append(found_axis(template, name, value, folder))
        elif name not in keys.OWN and name not in {"output_path", "verbosity"}:
            fixed, more = spreading.spread(name, value)
            shared |= fixed
            axes += more
    if template is not None:
        check_given(template, {*shared, *(name for axis in axes for name in axis.names)})
    _check_disjoint(axes)
    return Written(content, shared, tuple(axes), options, folder)


def plugins_in(content: Located) -> list[str]:
    """Return the plugins that a file names, anywhere."""
    places = [content, *(entry for name in ("methods", "include") for entry in _items(content, name))]
    found = [part.text for place in places if "plugin" in place.entries for part in place.entries["plugin"].items]
    found += [entry.text for entry in _items(content, "methods") if entry.text]
    return list(dict.fromkeys(found))


def listed(name: str, entries: Mapping[str, Located]) -> list[Located]:
    """Return the mappings in the list ``name``. Raises ``HarnessError`` where it is none, or something else is in it."""
    value = entries.get(name)
    if value is None or value.value is None:
        return []
    if not isinstance(value.parts, list):
        raise value.mistake(f"'{name}' takes a list of mappings, each as - {{name: value}}")
    for entry in value.parts:
        if not entry.entries:
            raise entry.mistake(f"an entry of '{name}' has to be a mapping, as {{name: value}}")
    return value.parts


def _items(content: Located, name: str) -> list[Located]:
    value = content.entries.get(name)
    return value.items if value is not None else []


def _methods(value: Located, entries: Mapping[str, Located]) -> Axis:
    """Return the axis of ``methods``: each entry sets several flags, and lists within it are its own axes."""
    if isinstance(value.parts, list) and not value.parts:
        raise value.mistake("'methods' has an empty list, which gives no cell; leave it out, or name a method")
    for name in ("plugin", "method"):
        if name in entries:
            raise entries[name].mistake(f"'{name}' stands in each entry of methods; take it out here")
    found: list[Combination] = []
    for entry in value.items:
        if not entry.entries:  # a name alone
            if not isinstance(entry.value, str):
                raise entry.mistake("an entry of 'methods' has to be a mapping, as {plugin: NAME, method_args: {...}}")
            found.append({"method" if entry.value == "baseline" else "plugin": entry})
            continue
        for name, part in entry.entries.items():
            _of_cells(name, part)
            if name not in keys.flags():
                hint = suggestion(name, keys.flags())
                raise part.mistake(f"'{printable(name)}' in methods is no flag of `harness eval`; {hint}")
        found += spreading.together(entry.entries.items(), entry)
    return Axis(tuple(found), value.where, is_grouped=True)


def _of_cells(name: str, value: Located) -> str:
    """Return a name that may differ from cell to cell. Raises ``HarnessError`` for what is one for all of them."""
    if name in keys.ONCE:
        raise value.mistake(f"'{name}' is one for all cells; it stands by itself in the file")
    return name


def _undotted(pairs: list[tuple[str, Located]]) -> Iterator[tuple[str, Located]]:
    """Yield entries with those of one option as mappings, which is how they are written elsewhere."""
    for name, value in pairs:
        flag, dot, option = name.partition(".")
        if not dot:
            yield name, value
            continue
        yield flag, Located({option: value.value}, value.where, parts={option: value})


def _check_disjoint(axes: list[Axis]) -> None:
    seen: dict[str, Axis] = {}
    for axis in axes:
        for name in axis.names:
            if name in seen:
                raise HarnessError(f"{axis.where}: '{printable(name)}' is an axis twice ({seen[name].where}); keep one")
            seen[name] = axis


def output_of(entries: Mapping[str, Located]) -> Path:
    """Return where records go, as the file writes it."""
    value: Any = entries.get("output_path")
    text = value.text if value is not None and value.value is not None else "results"
    if not text.strip() or "\0" in text:
        raise value.mistake("output_path is no folder; name one, or leave it out for results")
    return Path(text).expanduser()
