"""include and exclude: the rules of a matrix of GitHub Actions, against a plain reading of them."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sweeps.axes import Axis, excluded, included, product
from harness.sweeps.located import located

Plain = dict[str, int]
NAMES = st.sampled_from("abcd")
ENTRIES = st.lists(st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=3), max_size=4)


def plainly(axes: dict[str, list[int]], exclude: list[Plain], include: list[Plain]) -> list[Plain]:
    """Return the cells of a matrix, sentence by sentence of what is promised of one."""
    originals = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    # A combination need only match a part of it to be excluded.
    originals = [one for one in originals if not any(entry.items() <= one.items() for entry in exclude)]
    cells, new = [dict(one) for one in originals], []
    for entry in include:
        was_added = False
        for original, cell in zip(originals, cells, strict=True):
            # Added to each combination of which it overwrites no original value; added values may be overwritten.
            if all(original[name] == value for name, value in entry.items() if name in original):
                cell.update(entry)
                was_added = True
        if not was_added:
            new.append(dict(entry))
    return cells + new


@settings(max_examples=300, deadline=None)
@given(
    axes=st.dictionaries(
        NAMES, st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True), min_size=1, max_size=3
    ),
    exclude=ENTRIES,
    include=ENTRIES,
)
def test_include_and_exclude_do_what_a_matrix_does(
    axes: dict[str, list[int]], exclude: list[Plain], include: list[Plain]
) -> None:
    """Any axes, any entries: the same cells in the same order."""
    exclude = [entry for entry in exclude if entry.keys() <= axes.keys()]  # others are refused before
    lists = [Axis(tuple({name: located(value, "")} for value in values), "") for name, values in axes.items()]
    entries = [{name: [located(value, "")] for name, value in entry.items()} for entry in exclude]
    originals = [one for one in product(lists) if not any(excluded(one, entry) for entry in entries)]
    added = [{name: located(value, "") for name, value in entry.items()} for entry in include]
    found = [{name: value.value for name, value in cell.items()} for cell in included(originals, added, axes)]
    assert found == plainly(axes, exclude, include)


def test_the_documented_example_gives_the_documented_cells() -> None:
    """Two fruits, two animals and six entries: what is overwritten, what is added, and what is a cell of its own."""
    axes = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}
    lists = [Axis(tuple({name: located(value, "")} for value in values), "") for name, values in axes.items()]
    entries = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    added = [{name: located(value, "") for name, value in entry.items()} for entry in entries]
    found = [
        {name: value.value for name, value in cell.items()} for cell in included(list(product(lists)), added, axes)
    ]
    assert found == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
