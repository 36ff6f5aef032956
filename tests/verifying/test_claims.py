"""A recorded command is read by the grammar of the command line, and what no command line could say is told."""

from __future__ import annotations

import shlex

import pytest
from board_records import record

from harness.verifying import claims


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a=1,b=x", {"a": "1", "b": "x"}),
        ("words=[a,b],c=2", {"words": "[a,b]", "c": "2"}),
        ("text='a,b',c=2", {"text": "a,b", "c": "2"}),
        ('{"a": 1, "nested": [1]}', {"a": "1"}),
        ("", {}),
        ("a=1,a=2", {}),
        ('{"a": ', {}),
    ],
)
def test_options_of_a_recorded_command_are_read_as_the_command_line_reads_them(text: str, read: dict[str, str]) -> None:
    assert claims.pairs(text) == read


@pytest.mark.parametrize(
    ("text", "is_told"),
    [("a=1", False), ('{"a": [1]}', False), ("a=1,a=2", True), ("nonsense", True), ('{"a": ', True)],
)
def test_options_that_no_command_line_could_say_are_told(text: str, is_told: bool) -> None:
    made = record(command=f"harness eval --plugin p --method_args {shlex.quote(text)}")
    said = ("warning", "--method_args of its command cannot be read")
    assert (said in list(claims.doubts(made))) == is_told
