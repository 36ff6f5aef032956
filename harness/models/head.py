"""The output head, run only on the rows whose prediction is asked for, in blocks of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.models.refused import Refused
from harness.models.tree.products import linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor
# Tokens of the vocabulary at once on a CPU, so that their logits stay in the cache; logits at once on other devices.
CPU_BLOCK, DEVICE_BLOCK = 2048, 1 << 26
# Rows a CPU needs to multiply with the head's weights at full speed; with fewer, reading the weights is the cost.
ENOUGH_ROWS = 256


@dataclass(frozen=True)
class Barred:
    """Tokens that some rows may not have: ``rows`` (M,) row numbers, ``tokens`` (V,) True for those tokens."""

    rows: Tensor
    tokens: Tensor

    def hide(self, logits: Tensor, first: int) -> None:
        """Take them out of ``logits`` (N, some tokens from ``first`` on), in place."""
        here = self.tokens[first : first + logits.shape[-1]].to(logits.device)
        logits[self.rows] = logits[self.rows].masked_fill(here, -torch.inf)


class Head:
    """The output head of a model, with whatever the model does to its logits afterwards.

    Raises:
        Refused: the model has no head that can be found.
    """

    def __init__(self, model: PreTrainedModel, autocast: Callable[[], Any] = nullcontext) -> None:
        module = model.get_output_embeddings()
        if module is None:
            raise Refused("it has no output head apart from the rest")
        self.module, self.autocast = module, autocast
        # Then its weights may be used in blocks; anything else is called as it is.
        self.is_linear = type(module) is torch.nn.Linear and "forward" not in vars(module) and not module._forward_hooks
        # Log-probabilities are float32 whatever the model is, float64 if it is that.
        self.wide = torch.promote_types(model.dtype, torch.float32)
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

        def take(hidden: Tensor) -> Tensor:
            if self._taken is not None:
                raise Refused("its output head is called more than once")
            self._taken = hidden[0].index_select(0, rows.to(hidden.device))
            return self._taken[None, :pass_on]

        self._taken = None
        with reading(self.module, take):
            yield

    def taken(self) -> Tensor:
        """Return the hidden states (rows, width) of the last forward pass."""
        taken, self._taken = self._taken, None
        if taken is None:
            raise Refused("its output head is not called")
        return taken

    def learn_finish(self, hidden: Tensor, logits: Tensor, tolerance: float) -> None:
        """Find out what the model does to the head's output, from hidden states and the logits it made of them.

        Raises:
            Refused: nothing known gives the model's logits.
        """
        for is_linear in (True, False) if self.is_linear else (False,):
            for finish in self._candidates:
                self.is_linear, self.finish = is_linear, finish
                if self.agrees(hidden, logits, tolerance):
                    return
        raise Refused("it changes its logits after the output head in a way of its own")

    def agrees(self, hidden: Tensor, logits: Tensor, tolerance: float) -> bool:
        """Return whether this head makes the model's ``logits`` (N, V) of its ``hidden`` states."""
        ours = self.logits(hidden)
        return ours.shape == logits.shape and difference(logits.to(self.wide), ours) <= tolerance

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (N, vocabulary) of a few rows, float32 or wider."""
        return torch.cat([logits for _, logits in self._blocks(hidden)], dim=-1)

    def score(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each token in the given row, and whether it is the likeliest one.

        Args:
            hidden: (N, width).
            rows: (M,) row numbers; tokens: (M,) ids.
        """
        scores = torch.empty(len(rows), dtype=self.wide, device=hidden.device)
        is_best = torch.empty(len(rows), dtype=torch.bool, device=hidden.device)
        for start in range(0, len(hidden), ENOUGH_ROWS):
            chosen = ((rows >= start) & (rows < start + ENOUGH_ROWS)).nonzero()[:, 0]
            piece = hidden[start : start + ENOUGH_ROWS]
            scores[chosen], is_best[chosen] = self._score(piece, rows[chosen] - start, tokens[chosen])
        return scores, is_best

    def best(self, hidden: Tensor, barred: Barred | None = None) -> tuple[Tensor, Tensor]:
        """Return the likeliest token of each row (N,), and its logit (N,); -1 where the logits are not numbers.

        Args:
            hidden: (N, width).
            barred: tokens that some rows may not have.
        """
        best = torch.full((len(hidden),), -torch.inf, dtype=self.wide, device=hidden.device)
        token = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        is_number = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
        for first, logits in self._blocks(hidden):
            if barred is not None:
                barred.hide(logits, first)
            values, indices = logits.max(-1)
            is_number &= ~torch.isnan(values)
            is_better = values > best
            best = torch.where(is_better, values, best)
            token = torch.where(is_better, indices + first, token)
        return torch.where(is_number & torch.isfinite(best), token, -1), best

    def _score(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.argsort(tokens, stable=True)
        rows, tokens = rows[order], tokens[order]
        # The least number rather than minus infinity, so that a block of masked logits adds 0 and not NaN.
        most = torch.full((len(hidden),), torch.finfo(self.wide).min, dtype=self.wide, device=hidden.device)
        total = torch.zeros(len(hidden), dtype=self.wide, device=hidden.device)
        target = torch.empty(len(rows), dtype=self.wide, device=hidden.device)
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

    def _bounds(self, rows: int) -> list[tuple[int, int | None]]:
        if not self.is_linear:
            return [(0, None)]
        size, is_cpu = len(self.module.weight), self.module.weight.device.type == "cpu"
        width = CPU_BLOCK if is_cpu else max(CPU_BLOCK, DEVICE_BLOCK // max(1, rows))
        return [(first, min(first + width, size)) for first in range(0, size, width)]

    def _blocks(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (first token, logits (N, some tokens)), float32 or wider, that the receiver may overwrite."""
        for first, stop in self._bounds(len(hidden)):
            with self.autocast():
                logits = self.module(hidden) if stop is None else self._part(hidden, slice(first, stop))
                if self.finish is not None:
                    logits = self.finish(logits)
            yield first, logits.to(self.wide)

    def _part(self, hidden: Tensor, tokens: slice) -> Tensor:
        weight, bias = self.module.weight[tokens], self.module.bias
        return linear(hidden.to(weight.device), weight, None if bias is None else bias[tokens])


def has_separate_head(model: PreTrainedModel) -> bool:
    """Return whether the output head has weights of its own rather than the input embeddings'."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or embeddings is None or not hasattr(head, "weight"):
        return False
    return bool(head.weight.data_ptr() != embeddings.weight.data_ptr())


@contextmanager
def head_kept_apart(model: PreTrainedModel) -> Iterator[None]:
    """Within it a head of its own may not be tied to the embeddings again, which ``tie_weights`` of transformers would do.

    Raises:
        HarnessError: it was; the method's head is lost.
    """
    if hasattr(model, "peft_config"):
        # What is tied below an adapter is so already, and ``tie_weights`` would take the adapter's layer for a matrix.
        vars(model)["tie_weights"] = lambda: None
        yield
        del vars(model)["tie_weights"]
        return
    is_separate = has_separate_head(model)
    if is_separate:
        model.config.tie_word_embeddings = False
    yield
    if is_separate and not has_separate_head(model):
        raise HarnessError(
            f"{type(model).__name__} tied its output head to the input embeddings again, which loses the method's head; the "
            "model class has to honour config.tie_word_embeddings=False"
        )


@contextmanager
def reading(module: torch.nn.Module, see: Callable[[Tensor], Tensor], *, called: str = "output head") -> Iterator[None]:
    """Within it ``see`` is given what a part reads, in every forward pass; the hook comes off again whatever happens.

    Args:
        module: the output head, ``model.get_output_embeddings()``, or another part that reads hidden states first
            (``layers.readers``).
        see: is given the hidden states (B, T, D) before the part, and returns those that it gets to see: the same, or, where
            it is the head, fewer positions (some, or none at all, save the time of multiplying with the vocabulary).
        called: what an error calls the part.

    Raises:
        Refused: in the forward pass, when the part is called with anything but (B, T, D).
    """

    def hook(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if not inputs or inputs[0].dim() != 3:
            raise Refused(f"its {called} is called in a way of its own")
        return (see(inputs[0]), *inputs[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def difference(plain: Tensor, other: Tensor) -> float:
    """Return the largest, over rows, of the root-mean-square difference relative to the size of the centred logits."""
    is_same = plain == other  # infinities, too
    apart = (plain - other).masked_fill(is_same, 0.0).square().mean(-1).sqrt()
    finite = plain.masked_fill(~torch.isfinite(plain), 0.0)
    size = (finite - finite.mean(-1, keepdim=True)).square().mean(-1).sqrt().clamp_min(1e-6)
    return float((apart / size).max())


def _finishes(config: Any) -> list[Callable[[Tensor], Tensor] | None]:
    """Return what the models of transformers do to logits, by the names their configurations give it; nothing last."""
    finishes: list[Callable[[Tensor], Tensor] | None] = []
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
    return [*finishes, None]
