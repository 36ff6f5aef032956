"""Kinds of model: one row each, with what it answers, and how it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import HarnessError
from harness.models.finding import resolve
from harness.models.kinds import KINDS, kind_of


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"vllm"}))  # which the ordinary environment has not
def test_what_is_loaded_is_of_the_class_that_was_named_before(name: str, tiny_model: Path) -> None:
    kind = kind_of(name)
    more = {"pooling": "eos"} if name == "encoder" else {}
    source = resolve({"pretrained": str(tiny_model), **more}, needs_weights=kind.has_weights)
    assert len(kind.check(source)) == len(source.load_tokenizer())
    lm = kind.load(source, "cpu", "auto")
    assert type(lm) is kind.lm() and (lm.model is not None) == kind.has_weights
    assert kind.device(None) in {"cpu", "cuda", "mps"}


def test_another_kind_is_told_with_those_there_are() -> None:
    with pytest.raises(HarnessError, match=r"'hff' is unknown; .*hf.*API models have no weights"):
        kind_of("hff")
