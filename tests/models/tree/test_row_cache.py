"""The room for keys of texts under way takes no more memory than the texts that are left need."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from harness.models.tree import room
from harness.models.tree.room import Room
from harness.models.tree.row_attention import RowCache

CPU = torch.device("cpu")


@dataclass
class Text:
    """A text under way, without a trunk."""

    length: int
    trunk: int = -1
    base: int = 0


@pytest.mark.parametrize("lazy", [True, False])
def test_room_of_ended_rows_goes_when_places_are_added(lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: memory of generation; one long text at the end does not hold room for all that ended before it."""
    monkeypatch.setattr(room, "is_lazy", lambda device: lazy)
    kept = [(torch.randn(2, 10, 4), torch.randn(2, 10, 4)) for _ in range(3)]
    texts: list[Text] = []
    cache = RowCache(texts)
    put = cache.add([torch.arange(10).numpy()] * 8, at=0, device=CPU)
    for layer, pair in enumerate(kept):
        put(layer, *pair)
    texts += [Text(10)] * 8
    assert cache.layers[0][0].shape[0] == 8
    del texts[2:]
    cache.reserve(2, 400, cache.layers)
    for (keys, values), (old_keys, old_values) in zip(cache.layers, kept, strict=True):
        assert keys.shape[0] == 2 and keys.shape[2] >= 400
        assert torch.equal(keys[1, :, :10], old_keys) and torch.equal(values[0, :, :10], old_values)
        assert not keys[:, :, 10:].any() and not values[:, :, 10:].any()


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(not room.is_lazy(CPU), reason="room takes memory at once here")
def test_room_takes_memory_where_it_is_written_and_gives_it_back() -> None:
    """Property: memory of generation; what is made ahead and what ended takes none."""
    before = resident()
    made = Room((64, 4, 256, 256), torch.empty(0))  # 64 MB
    assert made.tensor.shape == (64, 4, 256, 256) and resident() - before < 8e6
    made.tensor[3] = 1.0
    made.tensor[4:20] = 1.0
    assert resident() - before > 16e6
    for row in range(4, 20):
        made.let_go(row)
    assert resident() - before < 8e6
    assert not made.tensor[4:].any() and bool((made.tensor[3] == 1).all())


@pytest.mark.parametrize("shape", [(3, 1, 5, 4), (0, 2, 3, 4), (5, 2, 700, 3)])
def test_a_row_that_is_let_go_leaves_its_neighbours_alone(shape: tuple[int, ...]) -> None:
    """Property: rows whose pages are others', too, keep their numbers; an empty room is one."""
    made = Room(shape, torch.empty(0, dtype=torch.bfloat16))
    made.tensor.fill_(2)
    if shape[0]:
        made.let_go(1)
        assert bool((made.tensor[0] == 2).all()) and bool((made.tensor[2:] == 2).all())
    assert made.tensor.dtype == torch.bfloat16
