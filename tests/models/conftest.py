"""A tiny Llama for the tests of LMs."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval_answers import llama

from harness.models.causal import CausalLM


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """A tiny Llama of this test's own, with large random weights."""
    return llama(tokenizer)


@pytest.fixture
def lm(model: Any, tokenizer: Any) -> CausalLM:
    """``CausalLM`` around the model."""
    return CausalLM(model, tokenizer)
