"""Drawn tokens: those of the whole vocabulary put in order, which is done only where a draw needs it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from harness.models.drawing import LIKELIEST, Sampled, Words

STREAMS = [f"text {number}" for number in range(40)]


def in_order(draw: Sampled, logits: torch.Tensor, share: float) -> int:
    """Return the word at a share of what may be drawn, found in the whole vocabulary in order."""
    probabilities, tokens = torch.softmax((logits / draw.temperature).double(), -1).sort(descending=True, stable=True)
    probabilities = probabilities[: draw.top_k or None]
    probabilities = probabilities[probabilities.cumsum(-1) - probabilities < draw.top_p]
    edge = share * probabilities.sum()
    return int(tokens[min(int((probabilities.cumsum(-1) <= edge).sum()), len(probabilities) - 1)])


@pytest.mark.parametrize("words", [3, LIKELIEST, LIKELIEST + 1, 3000])
@pytest.mark.parametrize("spread", [0.4, 8.0])
@pytest.mark.parametrize("is_rounded", [False, True])
@pytest.mark.parametrize("bounds", [{}, {"top_p": 0.93}, {"top_k": 2}, {"top_k": 300, "top_p": 0.99, "temperature": 2}])
def test_a_draw_is_that_of_the_whole_vocabulary_in_order(
    words: int, spread: float, is_rounded: bool, bounds: dict[str, Any]
) -> None:
    """Demand: with equal probabilities too, of which those first in the vocabulary go first."""
    torch.manual_seed(words)
    logits = spread * torch.randn(words)
    logits = logits.round() if is_rounded else logits
    draw = Sampled(5, **bounds)
    found = draw.tokens(logits, STREAMS, 7)
    assert found == [in_order(draw, logits, draw.share(stream, 7)) for stream in STREAMS]


def test_the_whole_vocabulary_is_not_put_in_order_for_an_ordinary_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = 6 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    asked: list[int] = []

    def again(row: int) -> torch.Tensor:
        asked.append(row)
        return logits

    [words] = Sampled(0, top_p=0.9).words(logits[None], again)
    assert isinstance(words, Words) and len({words.drawn(number / 50) for number in range(50)}) > 3
    assert not asked
    [words] = Sampled(0).words(logits[None] / 50, again)
    assert words.drawn(0.999) >= 0 and asked == [0]


def test_a_draw_does_not_depend_on_what_was_drawn_before() -> None:
    """Property 24: at the very edges between words, a place whose whole vocabulary was put in order draws as a fresh one."""
    logits = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    [fresh], [asked] = Sampled(0).words(logits[None]), Sampled(0).words(logits[None])
    asked.drawn(1 - 1e-12)
    assert asked.is_whole and float(asked.likeliest.sum()) != 1
    edges = fresh.likeliest.cumsum(-1)[:-2].tolist()
    for share in [other for edge in edges for other in (math.nextafter(edge, 0), edge, edge * (1 + 1e-9))]:
        assert fresh.drawn(share) == asked.drawn(share)
    assert not fresh.is_whole


@pytest.mark.parametrize("words", [LIKELIEST // 2, 2000])
def test_a_word_without_probability_is_never_drawn(words: int) -> None:
    """Where rounding leaves the sum of all probabilities below 1, a share beyond it is a word that may be drawn, too."""
    logits = 20 + 0.5 * torch.randn(20, words, generator=torch.Generator().manual_seed(0))
    logits[:, 7] = -math.inf
    found = Sampled(0).words(logits)
    sums = [torch.exp(row.double() - of.total).sum() for row, of in zip(logits, found, strict=True)]
    assert min(sums) < 1 - 1e-7
    assert 7 not in [of.drawn(1 - 1e-12) for of in found]


def test_a_draw_does_not_depend_on_what_is_drawn_beside_it() -> None:
    """Property 24: the sum over a row is the same alone and beside others, with several threads, too."""
    logits = 3 * torch.randn(6, 49_152, generator=torch.Generator().manual_seed(4))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = [words.total for words in Sampled(0).words(logits)]
        assert [Sampled(0).words(row[None])[0].total for row in logits] == together
    finally:
        torch.set_num_threads(threads)


def test_logits_that_are_no_numbers_give_no_word() -> None:
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 0.0], [torch.inf, 0.0]])
    assert [words.drawn(0.5) for words in Sampled(0).words(logits)] == [1, -1, -1]
