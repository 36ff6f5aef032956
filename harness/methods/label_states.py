"""What the output head reads at the places that have a label, from one pass of the model over a batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from harness.methods.chance import Chance
from harness.methods.micro_batches import IGNORED, Batch, pad
from harness.methods.packing import check_packable, lay_out, layout_of, run_packed
from harness.models.head import DEVICE_BLOCK, Head, difference, reading
from harness.models.refused import Refused
from harness.models.tree.fitness import LOW_PRECISION_TOLERANCE, TOLERANCE, parts_of
from harness.models.tree.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor
# Rows whose logits are made at once on a CPU: enough to multiply with the head's weights at full speed.
CPU_ROWS = 256
PROBE_TOKENS = 32


@dataclass
class _Known:
    """What was found out about a model: its head, None where that is used the plain way, and whether rows may be packed."""

    parts: object
    head: Head | None
    packs: bool | None = None


_KNOWN: weakref.WeakKeyDictionary[torch.nn.Module, _Known] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class LabelStates:
    """What predicts each of the N labels of a batch.

    ``hidden`` (N, width) is what the head reads; without a ``head`` that can be used apart, it is the logits (N, V).
    ``targets`` (N,) are the labels, ``places`` (N, 2), on the CPU or where the batch is, the row of each and the place before it.
    """

    head: Head | None
    hidden: Tensor
    targets: Tensor
    places: Tensor

    def parts(self) -> list[slice]:
        """Return which of the N to make logits of at once."""
        return chunks(self.head, len(self.hidden))

    def logits(self, part: slice) -> Tensor:
        """Return the model's logits (n, V) of some of the N, float32 or wider; the adapter that is on now is the head's, too."""
        rows = self.hidden[part]
        if self.head is None:
            return rows.to(torch.promote_types(rows.dtype, torch.float32))
        logits = self.head.module(rows)
        return (logits if self.head.finish is None else self.head.finish(logits)).to(self.head.wide)


def label_states(model: torch.nn.Module, batch: Batch) -> LabelStates:
    """Run the model over ``batch`` once, and return what its head reads where a label is due.

    Rows without padding between them stand side by side where the model passes a try-out, and what a row and the one before it
    begin alike with goes through the model once. The head is not run.
    """
    known = _known(model, batch)
    labels = batch.labels[:, 1:]
    places = (labels != IGNORED).nonzero()
    targets = labels[places[:, 0], places[:, 1]].to(_device(model))
    if known.head is None:
        logits = _call(model, batch).logits
        at = places.to(logits.device)
        return LabelStates(None, logits[at[:, 0], at[:, 1]], targets.to(logits.device), places)
    layout = layout_of(batch)
    if layout is not None and _packs(model, known, batch):
        hidden, _ = _read(model, known.head, lambda: run_packed(model, batch, layout, _device(model)))
        index = layout.index.to(places.device)
    else:
        hidden, _ = _read(model, known.head, lambda: _call(model, batch))
        index = torch.arange(batch.labels.numel(), device=places.device).view(batch.labels.shape)
    rows = index[places[:, 0], places[:, 1]].to(hidden.device)
    return LabelStates(known.head, hidden.flatten(0, 1).index_select(0, rows), targets.to(hidden.device), places)


def chunks(head: Head | None, rows: int) -> list[slice]:
    """Return the rows in parts whose logits may be made at once."""
    weight = None if head is None else getattr(head.module, "weight", None)
    is_device = weight is not None and weight.device.type != "cpu"
    size = max(CPU_ROWS, DEVICE_BLOCK // max(1, len(weight))) if weight is not None and is_device else CPU_ROWS
    return [slice(start, start + size) for start in range(0, rows, size)]


def _read(
    model: torch.nn.Module, head: Head, call: Callable[[], Any], *, pass_on: int | None = 0
) -> tuple[Tensor, Tensor]:
    """Return what the head reads (B, T, width), and the logits of the ``pass_on`` first places of each row (None: of all)."""
    read: list[Tensor] = []

    def take(hidden: Tensor) -> Tensor:
        read.append(hidden)
        return hidden[:, :pass_on]

    with reading(head.module, take):
        logits = call().logits
    if len(read) != 1:
        raise Refused(f"its output head is called {len(read)} times")
    return read[0], logits


def _call(model: torch.nn.Module, batch: Batch) -> Any:
    device = _device(model)
    # Keys and values are never looked at again.
    options = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}
    return model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device), **options)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _known(model: torch.nn.Module, batch: Batch) -> _Known:
    """Return what is known of the model as it is now; its head is tried out once."""
    parts = (getattr(model, "dtype", None), parts_of(model))
    known = _KNOWN.get(model)
    if known is None or known.parts != parts:
        known = _Known(parts, _tried(model, batch))
        _KNOWN[model] = known
    return known


def _packs(model: Any, known: _Known, batch: Batch) -> bool:
    """Return whether rows may stand side by side; tried out once, on the first rows of different lengths."""
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return False  # layers that run again in the backward pass would do so outside
    if known.packs is None:
        chance = Chance(_device(model))
        try:
            known.packs = _packs_rows(model, cast("Head", known.head), batch)
        except Exception as error:  # whatever an architecture does not accept
            if is_out_of_memory(error):
                raise
            known.packs = False
        finally:
            chance.restore()
    return known.packs


@torch.no_grad()
def _packs_rows(model: Any, head: Head, batch: Batch) -> bool:
    """Return whether rows give the same side by side as alone, up to rounding: the shortest, the longest, a part of it."""
    check_packable(model)
    lengths = batch.attention_mask.sum(1)
    first, longest = batch.input_ids[int(lengths.argmin())], batch.input_ids[int(lengths.argmax())]
    short = [
        min(int(length), limit) for length, limit in ((lengths.min(), PROBE_TOKENS), (lengths.max(), 2 * PROBE_TOKENS))
    ]
    shared = short[1] // 2
    rows = [first[: short[0]], longest[: short[1]], torch.cat([longest[:shared], first[: short[0]]])[:PROBE_TOKENS]]
    probe = pad([(row.tolist(), row.tolist()) for row in rows])
    layout = lay_out([len(row) for row in rows], [0, 0, min(shared, len(rows[2]))])
    packed, _ = _read(model, head, lambda: run_packed(model, probe, layout, _device(model)))
    tolerance = TOLERANCE.get(model.dtype, LOW_PRECISION_TOLERANCE)
    for row, length in enumerate(layout.lengths):
        one = probe.map(lambda tensor, row=row, length=length: tensor[row : row + 1, :length])  # type: ignore[misc]
        alone, _ = _read(model, head, lambda one=one: _call(model, one))  # type: ignore[misc]
        found = packed[0, layout.index[row, :length].to(packed.device)]
        if difference(alone[0].to(head.wide), found.to(head.wide)) > tolerance:
            return False
    return True


def _tried(model: Any, batch: Batch) -> Head | None:
    """Return the head if the rows it reads, and what is known of it, give the model's own logits."""
    row = int((batch.labels != IGNORED).sum(1).argmax())
    probe = batch.map(lambda tensor: tensor[row : row + 1, :PROBE_TOKENS])
    chance = Chance(_device(model))
    try:
        with torch.no_grad():
            head = Head(cast("PreTrainedModel", model))
            hidden, logits = _read(model, head, lambda: _call(model, probe), pass_on=None)
            tolerance = TOLERANCE.get(model.dtype, LOW_PRECISION_TOLERANCE)
            head.learn_finish(hidden[0], logits[0], tolerance)
            _read(model, head, lambda: _call(model, probe))
    except Exception as error:  # whatever an architecture does not accept
        if is_out_of_memory(error):
            raise
        return None
    finally:
        chance.restore()
    return head
