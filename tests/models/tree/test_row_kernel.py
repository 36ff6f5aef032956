"""Attention of texts under way by a compiled function: the model's own within rounding, and missed by nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval_answers import asking

from harness.models.tree import row_attention, row_kernel
from harness.models.tree.row_kernel import can_attend


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_what_the_function_cannot_read_goes_torchs_way() -> None:
    """Property: other types, odd widths, values of another width and numbers that lie otherwise are left to torch."""
    query, key, cached = numbers(4, 3, 16), numbers(2, 3, 16), (numbers(3, 2, 9, 16), numbers(3, 2, 9, 16))
    with torch.no_grad():
        assert can_attend(query, key, key, cached) == (row_kernel._kernel() is not None)
        assert not can_attend(query.double(), key.double(), key.double(), cached)
        assert not can_attend(query[..., :12], key[..., :12], key[..., :12], cached)
        assert not can_attend(query, key, key[..., :8], cached)
        assert not can_attend(query, key, key, (cached[0], cached[1].transpose(0, 1).contiguous().transpose(0, 1)))
    assert not can_attend(query, key, key, cached)  # gradients are asked for


@pytest.mark.skipif(row_kernel._kernel() is None, reason="this machine has no compiler")
def test_broken_numbers_stay_broken() -> None:
    """Property: a text whose numbers are none is found, and its neighbours keep theirs."""
    query, key, value = numbers(2, 2, 8), numbers(1, 2, 8), numbers(1, 2, 8)
    query[:, 0] = torch.nan
    cached = numbers(2, 1, 4, 8), numbers(2, 1, 4, 8)
    places = torch.tensor([0, 1]), torch.tensor([1, 2])
    with torch.no_grad():
        out, sums = row_kernel.row_attention(query, key, value, cached, *places, 1.0)
    assert out[0].isnan().all() and sums[:, 0].isnan().all()
    assert out[1].isfinite().all() and sums[:, 1].isfinite().all()


def test_texts_are_those_of_torchs_attention(lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: greedy texts are the same with and without it, with shared beginnings and without."""
    prompts = ["He went to the", "He went to sea", "x", "He went to the other end of the world"]
    requests = asking("generate_until", *((prompt, {"max_gen_toks": 12, "until": []}) for prompt in prompts))
    found = lm.generate_until(requests, True)
    monkeypatch.setattr(row_attention, "can_attend", lambda *_: False)
    assert lm.generate_until(requests, True) == found and len(found) == len(prompts)


def test_a_function_that_computes_something_else_is_not_used() -> None:
    """Property: what a compiler made is tried out before it is used."""
    assert not row_kernel.is_right(lambda *_: None)


def test_a_machine_that_cannot_compile_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: no compiler, no function, not a word."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    assert row_kernel._kernel.__wrapped__() is None
