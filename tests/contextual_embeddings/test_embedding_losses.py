"""InfoNCE and the divergence from token targets: golden values and gradients, and what a loss has to be."""

from __future__ import annotations

import math

import pytest
import torch
from embedding_golden import rows

from harness import HarnessError
from harness_contextual_embeddings.losses import false_negatives, info_nce, token_target_kl


def _doubles(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("number", range(16))
def test_info_nce_has_the_golden_values_and_gradients(number) -> None:
    """Property 7: to 1e-6 relative, with and without negatives, symmetric, masked; for inputs of any length."""
    row = rows("golden_infonce")[number]
    queries, positives = _doubles(row["queries"]), _doubles(row["positives"])
    negatives = _doubles(row["negatives"]) if row["negatives"] else None
    settings = {name: row[name] for name in ("temperature", "symmetric", "masked")}
    loss = info_nce(queries, positives, negatives, **settings)
    loss.backward()
    assert loss.item() == pytest.approx(row["loss"], rel=1e-6, abs=1e-12)
    inputs = {"queries": queries, "positives": positives} | ({} if negatives is None else {"negatives": negatives})
    for name, tensor in inputs.items():
        golden = torch.tensor(row[f"gradient_{name}"], dtype=torch.float64)
        assert torch.allclose(tensor.grad, golden, rtol=1e-6, atol=1e-9)


@pytest.fixture
def batch() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(5, 8), torch.randn(5, 8), torch.randn(3, 8)]


def test_lengths_and_order_do_not_count(batch) -> None:
    """Property 7: scaling changes nothing, a permutation of the batch neither."""
    queries, positives, negatives = batch
    loss = info_nce(queries, positives, negatives, temperature=0.1)
    order = torch.randperm(5)
    assert torch.allclose(info_nce(3 * queries, 0.2 * positives, 7 * negatives, temperature=0.1), loss, atol=1e-5)
    assert torch.allclose(info_nce(queries[order], positives[order], negatives, temperature=0.1), loss, atol=1e-5)


def test_a_high_temperature_leaves_the_logarithm_of_the_candidates(batch) -> None:
    """Property 7."""
    assert info_nce(*batch, temperature=1e6).item() == pytest.approx(math.log(8), abs=1e-5)


def test_one_more_negative_never_lowers_the_loss(batch) -> None:
    """Property 8."""
    queries, positives, negatives = batch
    losses = [info_nce(queries, positives, negatives[:count], temperature=0.05).item() for count in range(4)]
    assert losses == sorted(losses)


def test_half_precision_is_compared_in_single_precision(batch) -> None:
    halves = [tensor.bfloat16() for tensor in batch]
    loss = info_nce(*halves, temperature=0.02)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, info_nce(*[half.float() for half in halves], temperature=0.02), atol=1e-5)


@pytest.mark.parametrize("temperature", [0, -0.1, math.nan, math.inf])
def test_a_temperature_that_divides_nothing_is_refused(batch, temperature) -> None:
    with pytest.raises(HarnessError, match="temperature is"):
        info_nce(*batch, temperature=temperature)


def test_equal_texts_are_no_negatives() -> None:
    queries, positives, negatives = ["a", "b", "c"], ["A", "a", "A"], [["B"], [], ["c", "D"]]
    assert false_negatives(queries, positives, negatives) == [(0, 1), (0, 2), (2, 0), (2, 4)]
    own = false_negatives(queries, positives, negatives, own_negatives_only=True)
    assert own == [(0, 1), (0, 2), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5), (2, 0), (2, 3), (2, 4)]


def test_a_masked_duplicate_counts_as_if_it_were_not_there(batch) -> None:
    queries, positives, _ = batch
    doubled = torch.cat([positives[:1], positives[1:2]])
    loss = info_nce(queries, positives, doubled, temperature=0.1, masked=[(n, c) for n in range(5) for c in (5, 6)])
    assert torch.allclose(loss, info_nce(queries, positives, None, temperature=0.1))


@pytest.mark.parametrize("number", range(10))
def test_divergence_has_the_golden_values_and_gradients(number) -> None:
    """Property 18: the gradient is q - p."""
    row = rows("golden_kl")[number]
    logits = _doubles(row["logits"])
    loss = token_target_kl(logits, row["target"])
    loss.backward()
    assert loss.item() == pytest.approx(row["kl"], abs=1e-9)
    assert logits.grad.tolist() == pytest.approx(row["gradient"], abs=1e-9)


def test_the_target_itself_is_the_one_minimum() -> None:
    """Property 18: the divergence is not below 0, 0 at the target, and free logits find it."""
    target = [(2, 0.5), (5, 0.3), (6, 0.2)]
    logits = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        token_target_kl(logits, target).backward()
        optimizer.step()
    found = logits.detach().softmax(0)
    assert 0 <= token_target_kl(logits, target).item() < 1e-3
    assert [found[token].item() for token, _ in target] == pytest.approx([0.5, 0.3, 0.2], abs=1e-2)
    exact = torch.full((8,), -1e4, dtype=torch.float64)
    exact[[2, 5, 6]] = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    assert token_target_kl(exact, target).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("target", [[], [(1, 0.5)], [(1, 1.5), (2, -0.5)], [(1, math.nan)]])
def test_a_target_that_is_no_distribution_is_refused(target) -> None:
    with pytest.raises(HarnessError, match="sum to 1"):
        token_target_kl(torch.zeros(4), target)


def test_a_weight_of_zero_adds_nothing() -> None:
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(token_target_kl(logits, [(1, 1.0), (3, 0.0)]), token_target_kl(logits, [(1, 1.0)]))
