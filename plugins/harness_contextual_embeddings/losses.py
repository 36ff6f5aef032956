"""What is minimised: InfoNCE over the texts of a batch, and the divergence of a head's tokens from a target.

Both are computed in float32 or wider, whatever the embeddings are: in 16 bits a softmax at temperature 0.05 loses its tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from harness import HarnessError

Tensor = torch.Tensor
Target = Sequence[tuple[int, float]]
SUM_TOLERANCE = 1e-4


def info_nce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    *,
    temperature: float,
    symmetric: bool = False,
    masked: Sequence[Sequence[int]] = (),
) -> Tensor:
    """Return the contrastive loss: how unlikely each query finds its own positive among all candidates, in nats.

    Candidates of every query are the B positives, then the M negatives: those of the whole batch, so queries may have
    unequal numbers of them. Similarity is the cosine, divided by ``temperature``.

    Args:
        queries: (B, D), of any lengths.
        positives: (B, D), row i for query i.
        negatives: (M, D), shared by the batch; None or empty: there are none.
        temperature: above 0.
        symmetric: take the mean with the other direction, from positives to queries, where negatives play no part.
        masked: pairs (query, candidate) that are left out, in both directions; a query's own positive is none of them.

    Returns:
        A scalar, the mean over queries.

    Raises:
        HarnessError: the temperature is not above 0, or the batch is empty.
    """
    if not temperature > 0 or math.isinf(temperature):
        raise HarnessError(f"temperature is {temperature}; a finite number above 0 is due")
    if not len(queries) or queries.shape != positives.shape:
        raise HarnessError(
            f"{len(queries)} queries and {len(positives)} positives make no batch; one positive a query is due"
        )
    similarities = _unit(queries) @ _unit(_candidates(positives, negatives)).T / temperature
    similarities = similarities.masked_fill(_mask(similarities, masked), -math.inf)
    own = torch.arange(len(queries), device=queries.device)
    loss = torch.nn.functional.cross_entropy(similarities, own)
    if symmetric:
        back = similarities[:, : len(queries)].T
        loss = (loss + torch.nn.functional.cross_entropy(back, own)) / 2
    return loss


def token_target_kl(logits: Tensor, target: Target) -> Tensor:
    """Return the divergence KL(target || softmax(logits)) over the whole vocabulary, in nats; 0 where they are one.

    Args:
        logits: (V,).
        target: pairs of token id and probability, each id once, which sum to 1; all other tokens have 0.

    Returns:
        A scalar; its gradient is ``softmax(logits) - target``.

    Raises:
        HarnessError: the target is empty, has a negative or no finite weight, or does not sum to 1.
    """
    weights = [float(weight) for _, weight in target]
    if not weights or min(weights) < 0 or not abs(math.fsum(weights) - 1) < SUM_TOLERANCE:
        raise HarnessError(
            f"a target's weights are probabilities that sum to 1; these {len(weights)} sum to {math.fsum(weights):.6g}"
        )
    ids = torch.tensor([token for token, _ in target], device=logits.device)
    probabilities = torch.tensor(weights, dtype=torch.float64, device=logits.device)
    wide = _wide(logits)
    entropy = torch.special.xlogy(probabilities, probabilities).sum().to(wide.dtype)
    return entropy - (probabilities.to(wide.dtype) * (wide[ids] - wide.logsumexp(0))).sum()


def false_negatives(
    queries: Sequence[Any],
    positives: Sequence[Any],
    negatives: Sequence[Sequence[Any]],
    *,
    own_negatives_only: bool = False,
) -> list[tuple[int, int]]:
    """Return the (query, candidate) pairs of a batch that would punish what is right, for ``info_nce`` to leave out.

    A candidate is no negative of a query whose text, or whose positive's text, it has; the positive itself stays.

    Args:
        queries: B texts.
        positives: B texts.
        negatives: each query's own, any number of them.
        own_negatives_only: leave out the negatives of other queries, too.
    """
    candidates = [*positives, *(text for own in negatives for text in own)]
    owners = [*range(len(positives)), *(query for query, own in enumerate(negatives) for _ in own)]
    return [
        (query, place)
        for query in range(len(queries))
        for place, text in enumerate(candidates)
        if place != query
        and (
            text in (queries[query], positives[query])
            or (own_negatives_only and place >= len(positives) and owners[place] != query)
        )
    ]


def _candidates(positives: Tensor, negatives: Tensor | None) -> Tensor:
    return positives if negatives is None or not len(negatives) else torch.cat([positives, negatives.to(positives)])


def _mask(similarities: Tensor, masked: Sequence[Sequence[int]]) -> Tensor:
    mask = torch.zeros_like(similarities, dtype=torch.bool)
    for query, candidate in masked:
        if query == candidate:
            raise ValueError(f"query {query} has its own positive masked")
        mask[query, candidate] = True
    return mask


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(_wide(rows), dim=-1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
