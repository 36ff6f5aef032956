"""What an LM counts of its work fits together."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval_answers import (
    PROMPTS,
    TEXTS,
    pairs,
)

from harness.models.causal import CausalLM


def test_what_is_counted_fits_together(model: Any, tokenizer: Any) -> None:
    """Demand: requested is the sum of lengths; distinct is at most pushed; share at most 1; and counting starts again."""
    lm = CausalLM(model, tokenizer)
    requests = pairs(30)
    lm.loglikelihood(requests, True)
    asked = [tokenizer.encode("".join(request.args))[:-1] for request in requests]
    assert lm.work.requested_tokens == sum(map(len, asked))
    assert lm.work.distinct_tokens == len({tuple(ids[:stop]) for ids in asked for stop in range(1, len(ids) + 1)})
    assert lm.work.distinct_tokens <= lm.work.pushed_tokens
    assert lm.work.share is not None and 0.9 < lm.work.share <= 1
    assert set(lm.work.describe()) >= {"share", "requested_tokens", "seconds"} and lm.work.sentence()
    before = lm.work.pushed_tokens
    lm.generate_until(PROMPTS, True)
    assert lm.work.share <= 1 and lm.work.pushed_tokens > before
    lm.start_counting()
    assert lm.work.pushed_tokens == 0 and not lm.truncated and lm.work.share is None


@pytest.mark.parametrize("way", ["scores", "texts", "rolling"])
def test_share_is_never_more_than_one_the_plain_way_either(model: Any, tokenizer: Any, way: str) -> None:
    """Demand: what the figure of merit means does not depend on the path."""
    lm = CausalLM(model, tokenizer, share_prefixes=False)
    requests = {"scores": pairs(), "texts": PROMPTS, "rolling": TEXTS}[way]
    kind = {"scores": "loglikelihood", "texts": "generate_until", "rolling": "loglikelihood_rolling"}[way]
    getattr(lm, kind)(requests, disable_tqdm=True)
    assert lm.work.share is not None and 0 < lm.work.share <= 1
