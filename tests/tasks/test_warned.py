"""Warnings of lm-eval are heard, made sentences of ours, and never printed as they are unless nobody knows them."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.utils import normalize_gen_kwargs

from harness.requests import is_drawn
from harness.tasks.warned import KNOWN, heard

# All that an evaluation goes through; what only other models, caches and lm-eval's own command line say is left out.
READ = ("evaluator.py", "evaluator_utils.py", "api/task.py", "api/group.py", "config/task.py", "models/utils.py")
ELSEWHERE = ("model_args not specified", "No filter defined, passing through", "doc_to_choice")


def test_what_lm_eval_says_of_generation_settings_becomes_notes() -> None:
    """Case a_limit_that_is_ignored: that of two limits one decides is heard, in the second evaluation as in the first."""
    notes = []
    for _ in range(2):
        with heard() as warned:
            for settings in (
                {"max_gen_toks": 8, "max_new_tokens": 4},
                {"do_sample": False, "temperature": 0.7},
                {"do_sample": True, "temperature": 0.0},
            ):
                normalize_gen_kwargs(settings)
                normalize_gen_kwargs(settings)
        notes.append(warned.notes)
    assert notes[0] == notes[1] == [
        "more than one limit on the length of an answer was given (max_gen_toks 8, max_new_tokens 4): max_gen_toks decided",
        "texts are greedy, do_sample being false: the temperature of 0.7 decides nothing",
        "do_sample is true at a temperature of 0, which draws nothing",
    ]  # fmt: skip


def test_documents_are_counted_and_what_nobody_knows_is_passed_on_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret-of-the-test-run")
    logger = logging.getLogger("lm_eval.api.task")
    handlers = list(logging.getLogger("lm_eval").handlers)
    with heard() as warned:
        for number in (1, 2, 2):
            logger.warning(f"Label index was not in within range of available choices,Sample:\n\n{{'q': {number}}}\n\n")
        for _ in range(2):
            logger.warning("the key is s3cret-of-the-test-run \x1b[31m and %s", "more\nlines")
        logging.getLogger("lm-eval").warning("x" * 1000)
        logger.warning("%d", "no number")
    assert warned.notes == ["the right answer of 2 documents is none of the choices: wrong, whatever the model answers"]
    first, second = warned.others
    assert "s3cret" not in first and "\x1b" not in first and first.endswith("and more lines")
    assert len(second) == 300
    assert capsys.readouterr().err == ""
    assert logging.getLogger("lm_eval").handlers == handlers


def test_every_warning_of_an_evaluation_is_known() -> None:
    """A version of lm-eval with another warning fails here: somebody has to say what becomes of it."""
    # Values are not filled in yet.
    patterns = [re.sub(r"False|True|\(\\\{\.\*\\\}\)", "1", known.pattern) for known in KNOWN]
    found = [(name, text) for name in READ for text in messages(Path(lm_eval.__file__).parent / name)]
    assert len(found) > 20
    unknown = [
        (name, text[:100])
        for name, text in found
        if not any(re.search(pattern, text) for pattern in patterns) and not any(part in text for part in ELSEWHERE)
    ]
    assert unknown == []


def messages(path: Path) -> Iterator[str]:
    """Yield the text of each warning and error that a file of lm-eval logs, 1 for each value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "eval_logger.warning",
            "eval_logger.error",
            "warning_once",
        }:
            text = node.args[-1] if ast.unparse(node.func) == "warning_once" else node.args[0]
            parts = [
                part.value if isinstance(part, ast.Constant) else "1" if isinstance(part, ast.FormattedValue) else ""
                for part in ast.walk(text)
                if not isinstance(part, ast.Constant) or isinstance(part.value, str)
            ]
            yield " ".join("".join(map(str, parts)).replace("%s", "1").split())


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        ({}, False),
        ({"do_sample": False}, False),
        ({"do_sample": True}, True),
        ({"temperature": 0.7}, True),
        ({"temperature": 0}, False),
        ({"temperature": 0.0, "do_sample": True}, False),
        ({"temperature": 0.7, "do_sample": False}, False),
        ({"temperature": 0.7, "do_sample": True}, True),
        ({"temperature": None, "do_sample": True}, True),
        ({"do_sample": True, "top_k": 1}, False),
        ({"do_sample": True, "top_k": 50}, True),
    ],
)
def test_answers_are_called_drawn_where_they_are(settings: dict[str, Any], drawn: bool) -> None:
    assert is_drawn(settings) is drawn
