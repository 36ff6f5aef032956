"""Training tool rows on frozen states: the full softmax's own numbers, without a matrix as wide as the vocabulary."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import HarnessError
from harness_tool_tokens.rows.settings import Settings
from harness_tool_tokens.rows.states import States
from harness_tool_tokens.rows.texts import FIRST_TOOL

Tensor = torch.Tensor
# Adam as in torch's defaults.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# On SmolLM2-135M with FuncQA this selects as well as any rate and number of steps tried, from 13 rows of text to 520. With
# few rows 300 steps are too few at this rate; a rate of 1e-2 lets more calls through with one row per tool, and gives more
# false ones with many.
EPOCHS, LEAST_STEPS = 10, 3000
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def penalty(rows: Tensor, prior: Tensor, *, weight: float, form: str) -> Tensor:
    """Return what being away from the prior costs; the derivative at the prior is 0 in both forms.

    Args:
        rows, prior: (K, D).
        weight: lambda.
        form: ``squared``, ``norm`` or ``none``.
    """
    apart = rows - prior
    if form == "squared":
        return weight * apart.square().sum()
    if form == "norm":
        return weight * torch.linalg.vector_norm(apart)  # torch's own subgradient at 0 is 0
    return apart.new_zeros(())


@torch.no_grad()
def train(states: States, prior: Tensor, start: Tensor, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """Return the trained rows (K, D) and a report.

    Args:
        states: of the rows of text to train on. Without any, the penalty alone acts, for ``steps`` steps.
        prior: (K, D), what the penalty holds rows to.
        start: (K, D), left as it is.

    Returns:
        The rows, and ``losses`` of every step (the mean cross-entropy before it, penalty apart), ``penalty`` at the end,
        ``distance`` to the prior in all and ``distances`` per tool, ``steps``, ``epochs``, ``positions`` and ``seconds``.

    Raises:
        HarnessError: the rows became NaN.
    """
    started = time.perf_counter()
    blocks = _blocks(states, len(start), settings.bias)
    steps = _steps(settings, len(blocks))
    rows, adam = start.clone().float(), _Adam(start, settings.learning_rate)
    losses = torch.zeros(steps)
    for step, block in enumerate(_drawn(blocks, steps, settings)):
        gradient = torch.zeros_like(rows)
        if block is not None:
            losses[step] = block.gradient(rows, gradient)
        _add_penalty_gradient(gradient, rows, prior, settings)
        adam.step(rows, gradient)
    if not bool(torch.isfinite(rows).all()):
        raise HarnessError(
            f"the tool rows became infinite in training at learning_rate {settings.learning_rate:g}; lower it"
        )
    distances = (rows - prior).norm(dim=-1)
    cost = penalty(rows, prior, weight=settings.penalty, form=settings.penalty_form)
    return rows, {
        "losses": [float(f"{value:.8g}") for value in losses.tolist()],
        "penalty": float(cost),
        "distance": float(distances.square().sum().sqrt()),
        "distances": distances.tolist(),
        "steps": steps,
        "epochs": steps / -(-len(blocks) // settings.batch_size) if blocks else 0.0,
        "positions": len(states),
        "seconds": round(time.perf_counter() - started, 3),
    }


@torch.no_grad()
def measure(states: States, rows: Tensor, bias: float = 0.0) -> dict[str, Any]:
    """Return how well rows choose tools at the positions of ``states``.

    Args:
        rows: (K, D).
        bias: added to every tool logit.

    Returns:
        ``selection``: share of calls at which the best tool is the right one; ``recall``: at which it beats all words,
        too; ``false``: share of word positions at which a tool fires; ``calls`` and ``words``: how many there are.
        ``tools``: for each tool in order ``calls``, ``precision``, ``recall`` and ``f1`` of the arg-max over words and
        tools. ``margins`` of calls: quantiles (see ``QUANTILES``) of the right tool's logit less the best word's and
        less the best other tool's; of words: of the best tool's logit less the best word's. None where nothing counts.
    """
    at = _choices(states, rows, bias)
    is_call, is_right = at.due >= 0, at.best == at.due
    words = states.weights[~is_call].double()
    return {
        "selection": _mean(is_right[is_call]),
        "recall": _mean((is_right & at.fires)[is_call]),
        "false": float((at.fires[~is_call] * words).sum() / words.sum()) if len(words) else None,
        "calls": int(is_call.sum()),
        "words": int((~is_call).sum()),
        "tools": [_of_tool(tool, at, states.weights) for tool in range(len(rows))],
        "margins": {
            "call_to_word": _quantiles((at.right - states.best_word)[is_call]),
            "call_to_tool": _quantiles((at.right - at.other)[is_call]) if len(rows) > 1 else None,
            "word_to_tool": _quantiles((at.top - states.best_word)[~is_call]),
        },
    }


@torch.no_grad()
def best_bias(states: States, rows: Tensor) -> float:
    """Return the bias with the best F1 of "fires with the right tool" over all calls.

    A call at which another tool fires is missed and a false call, as is any firing where a word is due (counted by its
    weight). F1 changes only where the bias passes a position's margin, so all values are tried: one between each two
    neighbouring margins, half-way so that rounding decides nothing; one beyond each end; and 0. Of equally good ones
    the nearest to 0 is returned, of two as near the lower.
    """
    at = _choices(states, rows, 0.0)
    thresholds, order = torch.sort((states.best_word - at.top).double())  # a position fires above its threshold
    if not len(order):
        return 0.0
    is_right = ((at.best == at.due) & (at.due >= 0)).double()[order]
    cost = torch.where(at.due >= 0, 1.0, states.weights).double()[order]
    ends = torch.stack([thresholds[0] - 1, thresholds[-1] + 1])
    middles = (thresholds[1:] + thresholds[:-1])[thresholds[1:] > thresholds[:-1]] / 2
    candidates = torch.cat([ends, middles, torch.zeros(1)])
    fired = torch.searchsorted(thresholds, candidates)  # how many thresholds are lower
    right = torch.cat([torch.zeros(1), is_right.cumsum(0)])[fired]
    scores = 2 * right / (torch.cat([torch.zeros(1), cost.cumsum(0)])[fired] + (at.due >= 0).sum()).clamp_min(1)
    best = candidates[scores >= scores.max() - 1e-12].tolist()
    return float(min(best, key=lambda value: (abs(value), value)))


@dataclass(frozen=True)
class _Choices:
    """Of each position: the due tool (-1: a word), the best one, its logit, the due one's, the best other's; if it fires."""

    due: Tensor
    best: Tensor
    top: Tensor
    right: Tensor
    other: Tensor
    fires: Tensor


def _choices(states: States, rows: Tensor, bias: float) -> _Choices:
    scores = states.hidden @ rows.T + bias
    due = torch.where(states.targets <= FIRST_TOOL, FIRST_TOOL - states.targets, -1)
    place = due.clamp_min(0)[:, None]
    top, best = scores.max(1)
    right = scores.gather(1, place)[:, 0]
    other = scores.scatter(1, place, -math.inf).amax(1)
    return _Choices(due, best, top, right, other, top > states.best_word)


def _of_tool(tool: int, at: _Choices, weights: Tensor) -> dict[str, Any]:
    cost = torch.where(at.due >= 0, 1.0, weights)
    fires, is_due = at.fires & (at.best == tool), at.due == tool
    right, fired, due = float((fires & is_due).sum()), float(cost[fires].sum()), int(is_due.sum())
    return {
        "calls": due,
        "precision": right / fired if fired else None,
        "recall": right / due if due else None,
        "f1": 2 * right / (fired + due) if fired + due else None,
    }


def _mean(of: Tensor) -> float | None:
    return float(of.double().mean()) if len(of) else None


def _quantiles(of: Tensor) -> list[float] | None:
    if not len(of):
        return None
    ordered = of.sort().values
    return [float(ordered[round(share * (len(ordered) - 1))]) for share in QUANTILES]


class _Block:
    """The positions of one step, laid out so that a step is a dozen operations."""

    def __init__(
        self, hidden: Tensor, log_total: Tensor, word: Tensor, tools: Tensor, weights: Tensor, bias: float
    ) -> None:
        self.hidden, self.log_total, self.tools, self.weights, self.bias = hidden, log_total, tools, weights, bias
        # Words' part of the loss that no row changes; one-hot places of due tools.
        self.word = word
        self.places = (tools >= 0).nonzero()[:, 0]
        self.due = tools[self.places]
        total = float(weights.sum())
        self.share = weights / total if total > 0 else weights

    def gradient(self, rows: Tensor, out: Tensor) -> Tensor:
        """Write the gradient (K, D) of the mean cross-entropy into ``out`` and return its value."""
        scores = self.hidden @ rows.T
        if self.bias:
            scores += self.bias
        total = torch.logaddexp(self.log_total, torch.logsumexp(scores, 1))
        chosen = scores[self.places, self.due]
        value = torch.dot(total - self.word, self.share) - torch.dot(chosen, self.share[self.places])
        # d/ds = share * (probability of the tool - 1 where it is due)
        slopes = scores.sub_(total[:, None]).exp_().mul_(self.share[:, None])
        slopes[self.places, self.due] -= self.share[self.places]
        torch.mm(slopes.T, self.hidden, out=out)
        return value


class _Adam:
    """Adam on one matrix, operation by operation as torch.optim.Adam, without what that does around it."""

    def __init__(self, like: Tensor, lr: float) -> None:
        self.first, self.second = (
            torch.zeros_like(like, dtype=torch.float32),
            torch.zeros_like(like, dtype=torch.float32),
        )
        self.lr, self.count = lr, 0

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """Move ``rows`` in place."""
        self.count += 1
        self.first.lerp_(gradient, 1 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = self.second.sqrt().div_(math.sqrt(1 - BETA2**self.count)).add_(EPSILON)
        rows.addcdiv_(self.first, root, value=-self.lr / (1 - BETA1**self.count))


def _blocks(states: States, tools: int, bias: float) -> list[_Block]:
    """Return a block for each row of text that has counted positions."""
    if not len(states):
        return []
    numbers = torch.where(states.targets <= FIRST_TOOL, FIRST_TOOL - states.targets, -1)
    if int(numbers.max()) >= tools:
        raise HarnessError(f"a training row is for tool {int(numbers.max())}, but there are rows for {tools} tools")
    sizes = torch.unique_consecutive(states.rows, return_counts=True)[1].tolist()
    parts = (states.hidden, states.log_total, states.target_logit, numbers, states.weights)
    pieces = zip(*(tensor.split(sizes) for tensor in parts), strict=True)
    return [_Block(hidden, total, word, tool, weight, bias) for hidden, total, word, tool, weight in pieces]


def _together(blocks: list[_Block]) -> _Block:
    """Return several rows of text as one block."""
    hidden, total, word, tool, weight = (
        torch.cat([getattr(block, name) for block in blocks])
        for name in ("hidden", "log_total", "word", "tools", "weights")
    )
    return _Block(hidden, total, word, tool, weight, blocks[0].bias)


def _drawn(blocks: list[_Block], steps: int, settings: Settings) -> Iterator[_Block | None]:
    """Yield the block of each step: rows in an order of their own every epoch."""
    order: list[_Block] = []
    epoch = 0
    for _ in range(steps):
        if not blocks:
            yield None
            continue
        if not order:
            order = [blocks[number] for number in epoch_order(len(blocks), seed=settings.seed, epoch=epoch)]
            epoch += 1
        part, order = order[: settings.batch_size], order[settings.batch_size :]
        yield part[0] if len(part) == 1 else _together(part)


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order in which an epoch visits ``count`` rows of text."""
    order = list(range(count))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return order


def _steps(settings: Settings, rows: int) -> int:
    per_epoch = -(-rows // settings.batch_size)
    if settings.epochs is not None:
        return settings.epochs * per_epoch
    steps = max(LEAST_STEPS, EPOCHS * per_epoch) if settings.steps is None else settings.steps
    return steps if rows or settings.penalty else 0


def _add_penalty_gradient(gradient: Tensor, rows: Tensor, prior: Tensor, settings: Settings) -> None:
    if not settings.penalty or settings.penalty_form == "none":
        return
    apart = rows - prior
    if settings.penalty_form == "squared":
        gradient.add_(apart, alpha=2 * settings.penalty)
        return
    length = float(torch.linalg.vector_norm(apart))
    if length > 0:  # at the prior the subgradient is 0
        gradient.add_(apart, alpha=settings.penalty / length)
