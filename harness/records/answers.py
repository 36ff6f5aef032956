"""What a row of a sample file says a model answered: which choice, with which log-likelihoods, or which text."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One continuation that was scored, with its log-likelihood (nats); ``is_greedy``: the model would write it itself."""

    text: str
    loglikelihood: float
    is_greedy: bool | None = None


def requests(row: dict[str, Any]) -> list[list[Any]]:
    """Return the arguments of each request of a document, in order: the prompt, then what goes with it."""
    arguments = row.get("arguments")
    if isinstance(arguments, dict):
        named = [arguments[name] for name in sorted(arguments, key=_number_in)]
        return [[part[key] for key in sorted(part, key=_number_in)] for part in named if isinstance(part, dict)]
    return [list(part) for part in arguments if isinstance(part, list | tuple)] if isinstance(arguments, list) else []


def prompt(row: dict[str, Any]) -> str:
    """Return the text that the first request puts before the model, empty when there is none."""
    return first_prompt(row) or ""


def first_prompt(row: dict[str, Any]) -> str | None:
    """Return the text of the first request, None where that is no text or not there."""
    found = requests(row)
    return found[0][0] if found and found[0] and isinstance(found[0][0], str) else None


def continuations(row: dict[str, Any]) -> list[Choice]:
    """Return the texts that were scored and their log-likelihoods; empty for a task that generates."""
    answers, asked = row.get("filtered_resps"), requests(row)
    if not isinstance(answers, list) or len(answers) != len(asked):
        return []
    found = [_choice(arguments, answer) for arguments, answer in zip(asked, answers, strict=True)]
    return [choice for choice in found if choice] if all(found) else []


def texts(row: dict[str, Any]) -> list[str]:
    """Return the texts that were generated, after the filter; empty for a task that scores."""
    answers = row.get("filtered_resps")
    if not isinstance(answers, list) or continuations(row):
        return []
    return [str(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer) for answer in answers]


def raw_texts(row: dict[str, Any]) -> list[str]:
    """Return the texts that were generated, before any filter."""
    given = row.get("resps")
    found = (
        [text for several in given if isinstance(several, list) for text in several] if isinstance(given, list) else []
    )
    return [text for text in found if isinstance(text, str)]


def chosen(row: dict[str, Any]) -> int | None:
    """Return the number of the likeliest choice, None where the row is no choice between answers to one prompt."""
    choices = continuations(row)
    contexts = {arguments[0] for arguments in requests(row) if arguments and isinstance(arguments[0], str)}
    if len(choices) < 2 or len(contexts) != 1 or any(math.isnan(choice.loglikelihood) for choice in choices):
        return None
    return max(range(len(choices)), key=lambda number: choices[number].loglikelihood)


def gold(row: dict[str, Any]) -> int | None:
    """Return the number of the right choice, None where the target is no such number."""
    try:
        number = int(row["target"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < len(continuations(row)) else None


def metrics(row: dict[str, Any]) -> dict[str, Any]:
    """Return the value of each metric of a document."""
    names = row.get("metrics")
    if not isinstance(names, list):
        return {}
    return {name: row[name] for name in names if isinstance(name, str) and name in row}


def is_wrong(row: dict[str, Any], metric: str, *, higher_is_better: bool | None) -> bool:
    """Whether a document got less than the whole of a metric that is right or wrong."""
    value = row.get(metric)
    if isinstance(value, str):
        value = {"True": 1.0, "False": 0.0}.get(value)
    return isinstance(value, int | float) and (value > 0 if higher_is_better is False else value < 1)


def _choice(arguments: list[Any], answer: Any) -> Choice | None:
    if isinstance(answer, list) and len(answer) == 2 and str(answer[1]) in {"True", "False"}:
        loglikelihood, is_greedy = _float(answer[0]), str(answer[1]) == "True"
        text = str(arguments[1]) if len(arguments) > 1 else ""
        return None if loglikelihood is None else Choice(text, loglikelihood, is_greedy)
    if len(arguments) == 1 and not isinstance(answer, list):  # the whole text is scored
        loglikelihood = _float(answer)
        return None if loglikelihood is None else Choice(str(arguments[0]), loglikelihood)
    return None


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


@functools.lru_cache(maxsize=4096)  # the same few names in every row
def _number_in(name: str) -> tuple[int, str]:
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdigit() else 0, name)
