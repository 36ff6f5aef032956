"""Kinds of model: one row each, with what it answers, and how it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.models.finding import resolve
from harness.models.kinds import KINDS, kind_of
from harness.models.lm import Promise
from harness.models.vllm.lm import VLLM


def promised(lm: Any) -> Promise:
    return Promise(lm.__name__, lm.answers, lm.advice)


def test_what_vllm_answers_is_promised_where_it_is_not_installed() -> None:
    assert promised(VLLM) == kind_of("vllm").promise


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"vllm"}))  # which the ordinary environment has not
def test_what_is_loaded_is_of_the_class_that_was_named_before(name: str, tiny_model: Path) -> None:
    kind = kind_of(name)
    more = {"pooling": "eos"} if name == "encoder" else {}
    source = resolve({"pretrained": str(tiny_model), **more}, needs_weights=kind.has_weights)
    assert len(kind.check(source)) == len(source.load_tokenizer())
    lm = kind.load(source, "cpu", "auto")
    assert promised(type(lm)) == kind.promise and (lm.model is not None) == kind.has_weights
    assert kind.device(None) in {"cpu", "cuda", "mps"}


def test_another_kind_is_told_with_those_there_are() -> None:
    with pytest.raises(HarnessError, match=r"'hff' is unknown; .*hf.*API models have no weights"):
        kind_of("hff")
