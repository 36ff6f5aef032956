"""What of the harness's code decides an answer: every module is said to, or said not to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from harness import own_code

# What decides may build on these, which say things to people, find plugins and keep time.
HELPS = {
    "__init__", "errors", "hookspecs", "imports", "names", "own_code", "plugins", "progress", "redaction", "removal",
    "secret_shapes", "timeouts",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Return the names below harness/ that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "harness":
            below = (node.module or "").removeprefix("harness").removeprefix(".")
            found |= {f"{below}.{alias.name}".removeprefix(".") for alias in node.names}
    return found


def test_every_module_decides_or_decides_nothing() -> None:
    assert [name for name in own_code.module_names() if own_code.place_of(name) is None] == []


def test_both_lists_name_what_is_there_once_each() -> None:
    places = [*own_code.DECIDES, *own_code.DECIDES_NOTHING]
    assert len(places) == len(set(places))
    assert set(places) == {own_code.place_of(name) for name in own_code.module_names()}
    assert set(own_code.MAKES_METHODS) <= set(own_code.DECIDES)


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("run.asking", "run"), ("run.__init__", "run"), ("run.summary", "run.summary"), ("records.record", "records"),
        ("records.answers", "records.answers"), ("models.tree.trie", "models"), ("runners", None),
    ],
)  # fmt: skip
def test_the_longest_name_is_the_place(module: str, place: str | None) -> None:
    assert own_code.place_of(module) == place


def test_what_makes_answers_builds_on_nothing_that_is_said_to_decide_none() -> None:
    """Of ``run``, which also writes records, the part below a method is meant: it calls everything."""
    strange = [
        f"{name} imports {target}"
        for name, path in own_code.module_names().items()
        if own_code.place_of(name) in {*own_code.DECIDES} - {"run"}
        for target in imported(path)
        if own_code.place_of(target) in {*own_code.DECIDES_NOTHING} - HELPS
    ]
    assert strange == []


def test_a_part_that_is_none_is_no_empty_digest() -> None:
    with pytest.raises(ValueError, match="modles is no part"):
        own_code.code_of(("modles",))
