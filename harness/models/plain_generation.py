"""Greedy text for models that cannot share: one prompt after the other, every token by a whole forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from harness.models.head import reading
from harness.models.refused import Refused
from harness.models.tree.prompts import Candidates, Choose, NotANumber, OnDone, Place, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from harness.models.head import Barred

Tensor = torch.Tensor


def generate_plainly(
    model: PreTrainedModel,
    call: Callable[[Tensor], Tensor],
    prompts: Sequence[Prompt],
    *,
    on_done: OnDone,
    choose: Choose,
) -> None:
    """Do what ``generate`` does, slowly, with nothing asked of the model but its forward pass.

    Args:
        call: the forward pass, (1, T) ids to (1, T, V) logits.

    Raises:
        NotANumber: logits are NaN or infinite.
        Refused: the model has no output head whose input can be seen.
    """
    for number, first in enumerate(prompts):
        waiting = [first]
        while waiting:
            prompt = waiting.pop(0)
            generated: list[int] = []
            while not generated or not (len(generated) >= prompt.limit or prompt.is_finished(generated)):
                candidates = _candidates(model, call, [*prompt.token_ids, *generated])
                (token,) = choose(candidates, [Place(prompt, generated)])
                if token < 0:
                    raise NotANumber(number)
                generated.append(token)
            waiting += on_done(number, prompt, generated) or ()


def _candidates(model: PreTrainedModel, call: Callable[[Tensor], Tensor], token_ids: Sequence[int]) -> Candidates:
    head = model.get_output_embeddings()
    if head is None:
        raise Refused("it has no output head apart from the rest")
    seen: list[Tensor] = []

    def see(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden

    with reading(head, see):
        device = model.get_input_embeddings().weight.device
        logits = call(torch.tensor([list(token_ids)], device=device))[0, -1:].float()
    if not seen:
        raise Refused("its output head is not called")

    def best(barred: Barred | None) -> tuple[Tensor, Tensor]:
        left = logits.clone()
        if barred is not None:
            barred.hide(left, 0)
        value, token = left.max(-1)
        return torch.where(torch.isfinite(value), token, -1), value

    return Candidates(seen[-1][0, -1:], best, logits.clone)
