"""The layers of a model, as parts that read hidden states one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.errors import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def readers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return what reads hidden states, L + 1 parts: the layers from the first to the last, then the output head.

    Part k reads what transformers calls ``hidden_states[k]``: part 0 the embeddings, part L what the last layer and the norm
    after it made. See what it reads, or change that, with ``reading`` of ``harness.models.head``.

    Raises:
        HarnessError: the model has no output head of its own, or no list of as many layers as its configuration says.
    """
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = (part for part in (decoder or model).modules() if isinstance(part, torch.nn.ModuleList))
    layers = next((found for found in lists if len(found) == count), None)
    if head is None or not layers:
        raise HarnessError(
            f"the layers of {type(model).__name__} cannot be found; use a causal language model of transformers whose layers "
            "stand in one list"
        )
    return [*layers, head]
