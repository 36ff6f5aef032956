"""Hidden states over a tree of tokens: of texts that begin alike the beginning goes through the model once, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.models.refused import Refused
from harness.models.tree.attention import Trunk, route
from harness.models.tree.fitness import check_kind, check_parts, rope_limit
from harness.models.tree.memory import freed_memory_kept
from harness.models.tree.scoring import TreeModel
from harness.models.tree.tree_attention import TreeAttention
from harness.models.tree.trie import Trie, plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.models.tree.work import Work

Tensor = torch.Tensor


class LastStates:
    """Stands where a model without a head would have one, and hands over its last hidden states."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._taken: Tensor | None = None

    @contextmanager
    def taking(self, rows: Tensor) -> Iterator[None]:
        """Within it a forward pass hands the states of ``rows`` of its (1, T) ids over (see ``taken``)."""

        def take(_: Any, __: Any, out: Any) -> None:
            self._taken = out.last_hidden_state[0].index_select(0, rows.to(out.last_hidden_state.device))

        handle = self.model.register_forward_hook(take)
        try:
            yield
        finally:
            handle.remove()

    def taken(self) -> Tensor:
        """Return the states (rows, D) of the last forward pass."""
        taken, self._taken = self._taken, None
        if taken is None:
            raise Refused("its forward pass returns no hidden states")
        return taken


class TreeStates:
    """A causal model without a head, run over packs of a tree. Whether its states are right has to be tried out.

    Args:
        work: counts what goes through the model.

    Attributes:
        most_tokens: of a text; None is no bound.

    Raises:
        Refused: it is known that this model's tokens look at more than those before them.
    """

    def __init__(self, model: PreTrainedModel, *, work: Work) -> None:
        config = model.config.get_text_config()
        check_kind(model, config)
        check_parts(model)
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise Refused("it has layers with a sliding window")
        layers = getattr(config, "num_hidden_layers", None)
        if not isinstance(layers, int):
            raise Refused("its configuration does not say how many layers it has")
        self.most_tokens = rope_limit(config)
        head: Any = LastStates(model)
        self._tree_model = TreeModel(model, head, layers=layers, work=work, autocast=nullcontext)

    @torch.no_grad()
    def states(
        self, rows: Sequence[Sequence[int]], counts: Sequence[int], *, budget: int
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each row of ids and the states (count, D) of its last ``count`` tokens.

        Args:
            budget: tokens per forward pass.
        """
        trie = Trie.build(rows, counts)
        wanted = np.unique(np.concatenate(trie.paths))
        is_wanted = np.zeros(len(trie), bool)
        is_wanted[wanted] = True
        found: list[Tensor | None] = [None] * len(trie)
        with freed_memory_kept():
            trunks: dict[int, Trunk] = {}
            for pack in plan(trie, budget):
                positions = pack.positions
                here = np.flatnonzero(is_wanted[positions])
                attention = TreeAttention(pack, trie, trunks, self._tree_model.device)
                with route(self._tree_model.model, attention):
                    states = self._tree_model.push(pack, trie, attention, here)
                for place, state in zip(positions[here].tolist(), states, strict=True):
                    found[place] = state
                for trunk in pack.done:
                    trunks.pop(trunk, None)
        for number, path in enumerate(trie.paths):
            yield number, torch.stack([state for place in path.tolist() if (state := found[place]) is not None])
