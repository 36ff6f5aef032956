"""What an entry of a sweep's file gives: a value, or an axis of values where it is a list or a range."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.errors import HarnessError
from harness.names import counted, printable
from harness.run.flags import KEY_VALUE, key_values, several
from harness.sweeps.axes import Axis, Combination, product, size
from harness.sweeps.located import Located, located

MOST_CELLS = 100_000
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(-?\d{1,18}))?")
# Flags whose text is the user's own, and those that a list is one value of.
VERBATIM, WHOLE = frozenset({"system_instruction", "samples"}), frozenset({"include_path"})


def spread(name: str, value: Located) -> tuple[Combination, list[Axis]]:
    """Return what ``name: value`` sets, and the axes that it has in their order; names of mappings are dotted.

    ``method_args: {scheme: [none, stochastok], steps: 48}`` sets ``method_args.steps`` and has an axis of
    ``method_args.scheme``.

    Raises:
        HarnessError: a list is empty, or a range is none.
    """
    if value.value is None:
        return {}, []
    if name == "seeds":
        name, value = "seed", _seeds(value)
    if name not in KEY_VALUE:
        values = alternatives(name, value)
        return ({name: values[0]}, []) if not _is_axis(name, value) else ({}, [_axis(name, values, value)])
    if isinstance(value.parts, list):
        return {}, [Axis(tuple(one for part in _filled(name, value) for one in whole(name, part)), value.where)]
    fixed: Combination = {}
    axes: list[Axis] = []
    for option, inner in _options(name, value).items():
        dotted = f"{name}.{option}"
        values = alternatives(dotted, inner)
        if _is_axis(dotted, inner):
            axes.append(_axis(dotted, values, inner))
        else:
            fixed[dotted] = values[0]
    return fixed, axes


def whole(name: str, value: Located) -> list[Combination]:
    """Return every combination that ``name: value`` gives, none of it an axis of its own.

    Raises:
        HarnessError: as ``spread``, or they are too many.
    """
    fixed, axes = spread(name, value)
    check_size(axes, value)
    return [fixed | combination for combination in product(axes)]


def together(entries: Iterable[tuple[str, Located]], at: Located) -> list[Combination]:
    """Return every combination that entries give when they are taken together, as one of ``methods`` or ``include``."""
    fixed: Combination = {}
    axes: list[Axis] = []
    for name, value in entries:
        own, more = spread(name, value)
        fixed |= own
        axes += more
    check_size(axes, at)
    return [fixed | combination for combination in product(axes)]


def check_size(axes: Iterable[Axis], at: Located) -> None:
    """Raise ``HarnessError`` where axes have more combinations than any plan is made of."""
    if (number := size(axes)) > MOST_CELLS:
        raise at.mistake(
            f"these are {counted(number, 'cell')}, and a sweep has at most {MOST_CELLS:,}; make several of it"
        )


def alternatives(name: str, value: Located) -> list[Located]:
    """Return the values of a list or a range, and of anything else the one value that it is."""
    if name in WHOLE or (name in VERBATIM and not isinstance(value.parts, list)):
        return [value]
    if not isinstance(value.parts, list):
        return _ranged(value)
    return [one for part in _filled(name, value) for one in (_ranged(part) if name not in VERBATIM else [part])]


def _is_axis(name: str, value: Located) -> bool:
    is_list = isinstance(value.parts, list) and name not in WHOLE
    return is_list or (name not in VERBATIM and isinstance(value.value, str) and bool(_RANGE.fullmatch(value.value)))


def _axis(name: str, values: Iterable[Located], at: Located) -> Axis:
    return Axis(tuple({name: value} for value in values), at.where)


def _filled(name: str, value: Located) -> list[Located]:
    if not value.items:
        raise value.mistake(
            f"'{printable(name)}' has an empty list, which gives no cell; leave it out, or give it a value"
        )
    return value.items


def _ranged(value: Located) -> list[Located]:
    """Return the numbers of a range such as ``0..2`` or ``0..6..2``, both ends included; of anything else, itself."""
    match = _RANGE.fullmatch(value.value) if isinstance(value.value, str) else None
    if match is None:
        return [value]
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step < 1 or last < first:
        hint = f"{last}..{first}" if last < first and step > 0 else f"{first}..{last}..1"
        raise value.mistake(f"the range {value.value} has nothing in it; write it upwards, as {hint}")
    if (last - first) // step >= MOST_CELLS:
        raise value.mistake(f"the range {value.value} has more than {MOST_CELLS:,} numbers")
    return [located(number, value.where) for number in range(first, last + 1, step)]


def _options(name: str, value: Located) -> dict[str, Located]:
    """Return the options of a mapping, or of text as the command line takes it."""
    if isinstance(value.parts, dict):
        return value.parts
    try:
        found = key_values([value.text], flag=f"--{name}")
    except HarnessError as error:
        raise value.mistake(error) from error
    # Lists of such text are values: it is a flag's own, whose axes are written outside of it.
    return {option: Located(one, value.where, str(one)) for option, one in found.items()}


def _seeds(value: Located) -> Located:
    """Return ``seeds``, which are a run with each, as a list of ``seed``."""
    words = list(_words(value))
    try:
        if not any(_RANGE.fullmatch(word) for word in words):
            words = several(words)
    except HarnessError as error:
        raise value.mistake(error) from error
    return located(words, value.where)


def _words(value: Located) -> Iterator[str]:
    for part in value.items:
        yield from (word.strip() for word in part.text.split(","))
