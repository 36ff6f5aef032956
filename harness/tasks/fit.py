"""An LM meets tasks: whether it can answer what they ask, and the tokenizer that some want to have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import HarnessError
from harness.models.lm import Promise
from harness.names import printable


def request_types(task: Any) -> frozenset[str]:
    """Return the kinds of request a task sends: names of LM methods."""
    declared = getattr(task, "request_types", None)
    if declared:
        return frozenset(declared)
    output_type = str(task.OUTPUT_TYPE)
    return frozenset({"loglikelihood" if output_type == "multiple_choice" else output_type})


def check_fit(tasks: Mapping[str, Any], lm: Any, *, more: frozenset[str] = frozenset(), hint: str = "") -> None:
    """Raise ``HarnessError`` when ``lm``, an LM, its class or its promise, cannot answer what a task asks.

    Args:
        more: request types that a method is going to make it answer.
        hint: what the user can do, to end the sentence with.
    """
    answers = lm.answers | more
    kind = lm.kind if isinstance(lm, Promise) else (lm if isinstance(lm, type) else type(lm)).__name__
    for name, task in tasks.items():
        missing = sorted(request_types(task) - answers)
        if missing:
            raise HarnessError(
                f"task '{printable(name)}' sends '{missing[0]}' requests, which {kind} cannot answer{lm.advice or hint}"
            )


def give_tokenizer(tasks: Mapping[str, Any], tokenizer: Any) -> None:
    """Hand the tokenizer under evaluation to the tasks that ask for one (those with ``use_tokenizer``)."""
    for task in tasks.values():
        if hasattr(task, "use_tokenizer"):
            task.use_tokenizer(tokenizer)
