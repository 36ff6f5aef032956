"""Stems attended unit after unit, in place: the same as side by side, whatever the strides, types and grouped heads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.models.tree.attention import How
from harness.models.tree.tree_attention import _Piece, padded

Tensor = torch.Tensor
SPANS = [(0, 5), (5, 1), (9, 4)]


def heads_of(count: int, *, is_last_dense: bool, dtype: torch.dtype) -> Tensor:
    """Return (count, 13, 8), a view with the strides that a model's layers give, or stranger ones."""
    if is_last_dense:
        return torch.randn(13, count, 8, dtype=dtype).transpose(0, 1)
    return torch.randn(8, count, 13, dtype=dtype).permute(1, 2, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("is_last_dense", [True, False])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_stems_unit_after_unit_give_what_they_give_side_by_side(
    key_heads: int, is_last_dense: bool, dtype: torch.dtype
) -> None:
    """No score moves: slices and strides instead of copies and padding give the same numbers and log-sum-exps."""
    torch.manual_seed(0)
    query, key, value = (
        heads_of(count, is_last_dense=is_last_dense, dtype=dtype) for count in (6, key_heads, key_heads)
    )
    rows, is_real = padded(SPANS)
    index = torch.as_tensor(rows)
    together = _Piece(index, index, torch.as_tensor(is_real.reshape(-1)), None)
    each = replace(together, spans=SPANS)
    found = []
    for piece in (together, each):
        out = torch.zeros(13, 6, 8, dtype=dtype)
        total = torch.zeros(6, 13, dtype=torch.promote_types(dtype, torch.float32))
        piece.attend(query, key, value, How(0.3), torch.arange(13), out, total)
        found.append((out, total))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6 if dtype != torch.bfloat16 else 2e-2)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6 if dtype != torch.bfloat16 else 2e-2)
    assert not found[1][0][6:9].any(), "rows of no stem are left alone"
