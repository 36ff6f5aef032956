"""Keys of unfinished answers are let go where memory ran out."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from answered import ALWAYS, answers, questions, told

from harness.models.tree import generation
from harness.models.tree.row_attention import KeptKeys

pytestmark = pytest.mark.usefixtures("own_cache", "quick_collection")


@pytest.mark.parametrize("options", [{"bias": ALWAYS}, {"bias": ALWAYS, "on_error": "text"}, {"variant": "in_context"}])
def test_unfinished_answers_hold_no_keys_when_they_begin_again(
    apply: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Demand: where memory ran out, nothing of the first attempt takes any of it; answers are the same."""
    lm = apply(**options, max_calls=3, max_argument_tokens=5)
    right = told(answers(lm, questions(12)))
    step, begin, keep = (getattr(generation._Generation, name) for name in ("_step", "__init__", "_keep"))
    for fails_at in (4, 9):
        steps, at_start, kept = itertools.count(1), [], [0]

        def failing(self: Any, steps: Any = steps, fails_at: int = fails_at) -> None:
            if next(steps) == fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            step(self)

        def beginning(self: Any, *arguments: Any, at_start: list[int] = at_start) -> None:
            gc.collect()
            at_start.append(sum(type(thing) is KeptKeys and bool(thing.layers) for thing in gc.get_objects()))
            begin(self, *arguments)

        def keeping(self: Any, *arguments: Any, kept: list[int] = kept) -> None:
            kept[0] += 1
            keep(self, *arguments)

        for name, made in (("_step", failing), ("__init__", beginning), ("_keep", keeping)):
            monkeypatch.setattr(generation._Generation, name, made)
        assert told(answers(lm, questions(12))) == right
        assert at_start == [0, 0] and kept[0] > 0
        monkeypatch.undo()
