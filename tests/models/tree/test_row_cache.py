"""The room for keys of texts under way is no larger than the texts that are left need."""

from __future__ import annotations

import torch

from harness.models.tree.row_attention import RowCache


def test_room_of_ended_rows_goes_when_places_are_added() -> None:
    """Property: memory of generation; one long text at the end does not hold room for all that ended before it."""
    cache = RowCache()
    kept = [(torch.randn(2, 10, 4), torch.randn(2, 10, 4)) for _ in range(3)]
    cache.add([torch.arange(10).numpy()] * 8, moved := list(kept), at=0)
    assert not moved  # what has been copied is not held twice
    assert cache.layers[0][0].shape[0] == 8
    cache.in_use = 2
    cache.reserve(2, 400, cache.layers)
    for (keys, values), (old_keys, old_values) in zip(cache.layers, kept, strict=True):
        assert keys.shape[0] == 2 and keys.shape[2] >= 400
        assert torch.equal(keys[1, :, :10], old_keys) and torch.equal(values[0, :, :10], old_values)
