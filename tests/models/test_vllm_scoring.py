"""Scores by a prefix cache: what is asked, what of a reply was computed, and what is computed again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from block_cache import Blocks
from transformers import AutoModelForCausalLM

from harness import HarnessError
from harness.models.tree.work import Work
from harness.models.vllm.asking import NEEDED, Item, Reply, check_options, rows_of
from harness.models.vllm.checking import Recheck, agree
from harness.models.vllm.scoring import Scoring, portions


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


def plainly(model: Any, sequence: Sequence[int], count: int) -> tuple[list[float], list[bool]]:
    """Return what a whole forward pass gives."""
    with torch.no_grad():
        scores = torch.log_softmax(model(torch.tensor([list(sequence[:-1])])).logits[0].float(), -1)[-count:]
    tokens = sequence[-count:]
    return (
        [float(row[token]) for row, token in zip(scores, tokens, strict=True)],
        [int(row.argmax()) == token for row, token in zip(scores, tokens, strict=True)],
    )


def requests_of_all_shapes() -> tuple[list[list[int]], list[int]]:
    """Return sequences and counts: contexts of every length beside a block, answers of every length, some that begin alike."""
    draw = random.Random(0)
    sequences, counts = [], []
    shots = [draw.randrange(100) for _ in range(6)]
    for length in range(1, 11):
        context = shots + [draw.randrange(100) for _ in range(length)]
        start = [draw.randrange(100) for _ in range(5)]
        for answer in (
            [7],
            [8],
            [7, 9],
            [draw.randrange(100) for _ in range(6)],
            [*start, 3, 4],
            [*start, 5, 6, 7],
            start,
        ):
            sequences.append(context + answer)
            counts.append(len(answer))
    sequences += [[1, *range(20, 40)], list(sequences[0])]
    return sequences, [*counts, 20, counts[0]]


def scored_by(engine: Blocks, work: Work | None = None, **more: Any) -> list[Any]:
    sequences, counts = requests_of_all_shapes()
    scoring = Scoring(engine, work=work or Work(), recheck=Recheck("float32"), **more)
    found = dict(scoring.score(sequences, counts))
    return [found[number] for number in range(len(sequences))]


def test_each_score_is_that_of_a_whole_pass_wherever_blocks_of_the_cache_end(model: Any) -> None:
    work = Work()
    sequences, counts = requests_of_all_shapes()
    for sequence, count, scored in zip(sequences, counts, scored_by(Blocks(model), work), strict=True):
        logprobs, is_best = plainly(model, sequence, count)
        np.testing.assert_allclose(scored.logprobs, logprobs, atol=1e-4)
        assert scored.is_best.tolist() == is_best
    assert work.distinct_tokens <= work.pushed_tokens < 0.7 * work.requested_tokens
    assert 0 < work.plain_tokens < work.pushed_tokens  # answers that begin alike reach into each other's blocks


def test_a_context_is_asked_once_for_all_answers_of_one_token(model: Any) -> None:
    engine = Blocks(model)
    sequences = [[*range(10, 30), choice] for choice in (1, 2, 3, 4)]
    dict(Scoring(engine, work=Work(), recheck=Recheck("float32")).score(sequences, [1] * 4))
    (first, *again) = engine.asked
    assert (list(first.token_ids), list(first.named)) == (list(range(10, 30)), [1, 2, 3, 4])
    assert len(again) == 2 and not any(ask.reads_cache for ask in again)  # what is computed again


def test_rows_that_were_never_computed_are_found_out_by_computing_some_again(model: Any) -> None:
    """Recomputed requests that disagree end the run before any answer is given."""
    alike = [pair for pair in zip(*requests_of_all_shapes(), strict=True) if pair[1] > 5]
    scoring = Scoring(Blocks(model, lies=True), work=Work(), recheck=Everything("float32"))
    given = scoring.score([sequence for sequence, _ in alike], [count for _, count in alike])
    with pytest.raises(
        HarnessError, match=r"prefix cache gives -.* without the cache it is -.*float32.*share_prefixes=false"
    ):
        next(given)


class Everything(Recheck):
    """Computes all requests again."""

    def drawn(self, items: Sequence[Item]) -> list[Item]:
        return list(items)


def test_a_cache_that_returns_too_few_rows_costs_time_and_no_score(model: Any) -> None:
    """A prefix cache that returns too few rows: the requests are computed alone."""
    for scored, usual in zip(scored_by(Blocks(model, too_few="cached")), scored_by(Blocks(model)), strict=True):
        np.testing.assert_allclose(scored.logprobs, usual.logprobs, atol=1e-4)
    with pytest.raises(
        HarnessError, match=r"vLLM gave \d+ rows of log-probabilities for a prompt of \d+ tokens.*--model hf"
    ):
        scored_by(Blocks(model, too_few="always"))


def test_without_sharing_nothing_is_taken_from_the_cache(model: Any) -> None:
    engine, work = Blocks(model), Work()
    scored_by(engine, work, reads_cache=False)
    assert not any(ask.reads_cache for ask in engine.asked)
    assert work.pushed_tokens == work.plain_tokens and not work.check_tokens


def test_portions_keep_the_answers_of_a_context_together_and_fit_the_cache() -> None:
    sequences, counts = requests_of_all_shapes()
    items = sorted({Item(tuple(s), c) for s, c in zip(sequences, counts, strict=True)}, key=lambda item: item.token_ids)
    parts = list(portions(items, 60))
    assert [item for part in parts for item in part] == items and len(parts) > 3
    firsts = [{item.context for item in part} for part in parts]
    assert all(not one & other for one, other in pairwise(firsts))


def test_a_row_counts_only_behind_the_cache_and_under_its_own_token() -> None:
    row = SimpleNamespace(logprob=-1.0, rank=1)
    reply = Reply(cached=2, named={}, best=0, rows=[None, {11: row}, {12: row}, {13: row}])
    ids = [10, 11, 12, 13]
    assert rows_of(reply, ids, 3) == [(-1.0, True)]
    assert rows_of(reply, ids, 2) is None, "the row of token 2 is computed from token 1, which came from the cache"
    assert rows_of(reply, ids, 4) == []
    assert rows_of(replace(reply, cached=None), ids, 3) is None
    assert rows_of(replace(reply, rows=reply.rows[1:]), ids, 3) is None
    assert rows_of(reply, [10, 11, 12, 14], 3) is None


def test_a_vllm_without_the_options_is_told_the_version_that_has_them() -> None:
    """A vLLM that lacks the options: the sentence names them, and the version that has them."""
    check_options(["temperature", *NEEDED], "0.32.0")
    with pytest.raises(
        HarnessError, match=r"vLLM 0.9.1 has no logprob_token_ids and no skip_reading.*vLLM 0.32 has them: pip"
    ):
        check_options(["temperature", "detokenize", "prompt_logprobs"], "0.9.1")


@pytest.mark.parametrize(
    ("dtype", "difference"), [("float32", 9e-4), ("float16", 5e-2), ("bfloat16", 0.3), ("int7", 0.3)]
)
def test_only_rounding_of_the_dtype_is_agreement(dtype: str, difference: float) -> None:
    assert agree(-12.0, -12.0 - difference, dtype, 6)
    assert not agree(-12.0, -12.0 - 37, dtype, 20)
    assert not agree(-12.0, float("nan"), dtype, 6)
    assert agree(float("nan"), float("-inf"), dtype, 6)  # the request is named as one whose score is no number


def test_the_same_requests_are_drawn_again_five_of_a_hundred_and_two_at_least() -> None:
    items = [Item((1, number), 1) for number in range(200)]
    drawn = Recheck("float32").drawn(items)
    assert len(drawn) == 10 and drawn == Recheck("float32").drawn(items)
    assert len(Recheck("float32").drawn(items[:5])) == 2 and not Recheck("float32").drawn([])
