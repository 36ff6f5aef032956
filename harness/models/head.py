"""The output head, run only on the rows whose prediction is asked for, in blocks of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from harness.models.attention import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor
# Tokens of the vocabulary at once on a CPU, so that their logits stay in the cache; logits at once on other devices.
CPU_BLOCK, DEVICE_BLOCK = 2048, 1 << 26
# Rows a CPU needs to multiply with the head's weights at full speed; with fewer, reading the weights is the cost.
ENOUGH_ROWS = 256


class Head:
    """The output head of a model, with whatever the model does to its logits afterwards.

    Raises:
        Refused: the model has no head that can be found.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        module = model.get_output_embeddings()
        if module is None:
            raise Refused("it has no output head apart from the rest")
        self.module = module
        self.is_linear = (
            type(module) is torch.nn.Linear and not module._forward_hooks and not hasattr(module, "_hf_hook")
        )
        self.size = int(module.out_features) if hasattr(module, "out_features") else int(module.weight.shape[0])
        self.finish: Callable[[Tensor], Tensor] | None = None
        self._rows: Tensor | None = None
        self._taken: Tensor | None = None
        self._candidates = _finishes(model.config.get_text_config())

    @contextmanager
    def taking(self, rows: Tensor, *, pass_on: int = 0) -> Iterator[None]:
        """Within it a forward pass hands the hidden states of ``rows`` over (see ``taken``).

        Args:
            rows: numbers of rows of a (1, T, width) batch.
            pass_on: rows that the model's own head still gets to see.
        """

        def keep(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            if inputs[0].dim() != 3:
                raise Refused("its output head is called in a way of its own")
            if self._taken is not None:
                raise Refused("its output head is called more than once")
            self._taken = inputs[0][0].index_select(0, rows.to(inputs[0].device))
            return (self._taken[None, :pass_on], *inputs[1:])

        self._taken = None
        handle = self.module.register_forward_pre_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def taken(self) -> Tensor:
        """Return the hidden states (rows, width) of the last forward pass."""
        taken, self._taken = self._taken, None
        if taken is None:
            raise Refused("its output head is not called")
        return taken

    def learn_finish(self, hidden: Tensor, logits: Tensor) -> None:
        """Find out what the model does to the head's output, from hidden states and the logits it made of them.

        Raises:
            Refused: nothing known gives the model's logits.
        """
        raw = self.module(hidden)
        for finish in self._candidates:
            ours = raw if finish is None else finish(raw)
            if ours.shape == logits.shape and torch.allclose(ours.float(), logits.float(), rtol=1e-5, atol=1e-5):
                self.finish = finish
                return
        raise Refused("it changes its logits after the output head in a way of its own")

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits (N, vocabulary) of a few rows."""
        return torch.cat([logits for _, logits in self._blocks(hidden)], dim=-1)

    def score(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each token in the given row, and whether it is the likeliest one.

        Args:
            hidden: (N, width).
            rows: (M,) row numbers; tokens: (M,) ids.
        """
        scores = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
        is_best = torch.empty(len(rows), dtype=torch.bool, device=hidden.device)
        for start in range(0, len(hidden), ENOUGH_ROWS):
            chosen = ((rows >= start) & (rows < start + ENOUGH_ROWS)).nonzero()[:, 0]
            piece = hidden[start : start + ENOUGH_ROWS]
            scores[chosen], is_best[chosen] = self._score(piece, rows[chosen] - start, tokens[chosen])
        return scores, is_best

    def best(self, hidden: Tensor) -> Tensor:
        """Return the likeliest token of each row (N,); -1 where the logits are not numbers."""
        best = torch.full((len(hidden),), -torch.inf, device=hidden.device)
        token = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        is_number = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
        for first, logits in self._blocks(hidden):
            values, indices = logits.max(-1)
            is_number &= ~torch.isnan(values)
            is_better = values > best
            best = torch.where(is_better, values, best)
            token = torch.where(is_better, indices + first, token)
        return torch.where(is_number & torch.isfinite(best), token, -1)

    def _score(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.argsort(tokens, stable=True)
        rows, tokens = rows[order], tokens[order]
        # The least number rather than minus infinity, so that a block of masked logits adds 0 and not NaN.
        most = torch.full((len(hidden),), torch.finfo(torch.float32).min, device=hidden.device)
        total = torch.zeros(len(hidden), device=hidden.device)
        target = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
        is_best = torch.zeros(len(rows), dtype=torch.bool, device=hidden.device)
        bounds = self._bounds(len(hidden))
        edges = torch.searchsorted(tokens, torch.tensor([first for first, _ in bounds], device=tokens.device)).tolist()
        for (first, logits), low, high in zip(self._blocks(hidden), edges, [*edges[1:], len(tokens)], strict=True):
            top = logits.amax(-1)
            if high > low:
                here, row = slice(low, high), rows[low:high]
                target[here] = logits[row, tokens[here] - first]
                # The first of equals is the best, as in arg-max.
                maybe = (target[here] == top[row]) & (target[here] > most[row])
                picked = maybe.nonzero()[:, 0]
                is_best[low + picked] = logits[row[picked]].argmax(-1) == tokens[here][picked] - first
            higher = torch.maximum(most, top)
            total.mul_((most - higher).exp_()).add_(logits.sub_(higher[:, None]).exp_().sum(-1))
            most = higher
        scores = target - (most + total.log())[rows]
        is_best &= target == most[rows]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return scores[back], is_best[back]

    def _bounds(self, rows: int) -> list[tuple[int, int]]:
        if not self.is_linear:
            return [(0, self.size)]
        is_cpu = self.module.weight.device.type == "cpu"
        width = CPU_BLOCK if is_cpu else max(CPU_BLOCK, DEVICE_BLOCK // max(1, rows))
        return [(first, min(first + width, self.size)) for first in range(0, self.size, width)]

    def _blocks(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (first token, float32 logits (N, some tokens)) that the receiver may overwrite."""
        if not self.is_linear:
            logits = self.module(hidden)
            yield 0, (logits if self.finish is None else self.finish(logits)).float()
            return
        weight, bias = self.module.weight, self.module.bias
        hidden = hidden.to(weight.device, weight.dtype)
        for first, stop in self._bounds(len(hidden)):
            logits = torch.nn.functional.linear(hidden, weight[first:stop], None if bias is None else bias[first:stop])
            yield first, (logits if self.finish is None else self.finish(logits)).float()


def _finishes(config: Any) -> list[Callable[[Tensor], Tensor] | None]:
    """Return what the models of transformers do to logits, by the names their configurations give it."""
    finishes: list[Callable[[Tensor], Tensor] | None] = [None]
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        finishes.append(lambda logits: torch.tanh(logits / cap) * cap)
    for name in ("logit_scale", "logits_scale"):
        scale = getattr(config, name, None)
        if isinstance(scale, int | float):
            finishes.append(partial(torch.mul, other=scale))
    divisor = getattr(config, "logits_scaling", None)
    if isinstance(divisor, int | float) and divisor:
        finishes.append(lambda logits: logits / divisor)
    return finishes
