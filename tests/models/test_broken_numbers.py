"""Broken numbers stop a run: the request that has them is named, and half precision makes none by itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from lm_eval_answers import (
    Declared,
    asking,
    llama,
    some_text,
)

from harness.errors import HarnessError
from harness.models.causal import CausalLM
from harness.models.tree import attention


def broken(tokenizer: Any, *, token: str | None) -> Any:
    """Return a model whose logits are not numbers, after one token or after any."""
    model = llama(tokenizer, tie_word_embeddings=False)
    with torch.no_grad():
        if token is None:
            model.model.layers[1].mlp.down_proj.weight[3, 3] = torch.nan
        else:
            model.model.embed_tokens.weight[tokenizer.encode(token)[0]] = torch.nan
    return model


@pytest.mark.parametrize("token", [None, "?"])
def test_scores_that_are_not_numbers_stop_the_run_and_name_the_request(tokenizer: Any, token: str | None) -> None:
    """Demand: NaN is an error with the request's name, on either path; with one bad token the request that has it."""
    model = broken(tokenizer, token=token)
    name = "document 0" if token is None else "document 1"
    lm = CausalLM(model, tokenizer)
    good = [] if token is None else [("The clock", " ticked")]
    ask = [*good, ("Noon?", " ticked"), *good]
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*nan"):
        lm.loglikelihood(asking("loglikelihood", *ask), True)
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*nan"):
        lm.loglikelihood_rolling(asking("loglikelihood_rolling", *((a + b,) for a, b in ask)), True)
    ids = [tokenizer.encode(a + b) for a, b in ask]
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*nan"):
        lm.token_loglikelihoods(asking("token_loglikelihoods", *(("", i) for i in ids)))
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*NaN"):
        lm.generate_until(asking("generate_until", *((a, {"max_gen_toks": 4}) for a, _ in ask)), True)


def test_a_token_without_an_embedding_is_explained(tokenizer: Any) -> None:
    """Demand: the tokenizer of another model is named as such, not an index error, whatever is asked."""
    lm = CausalLM(llama(tokenizer, vocab_size=300, eos_token_id=0), tokenizer)
    text = "The clockmaker's shop stood between a bakery and a bank"
    assert max(tokenizer.encode(text)) >= 300
    for kind, args in (
        ("loglikelihood", (text, " now")),
        ("loglikelihood_rolling", (text,)),
        ("generate_until", (text, {"max_gen_toks": 4})),
        ("token_loglikelihoods", ("", tokenizer.encode(text))),
    ):
        with pytest.raises(HarnessError, match="embeddings for 300 tokens"):
            getattr(lm, kind)(asking(kind, args))


@pytest.mark.parametrize("softcap", [None, 50.0])
@pytest.mark.parametrize("is_biased", [True, False])
def test_large_half_precision_queries_and_keys_do_not_overflow(softcap: float | None, is_biased: bool) -> None:
    """Demand: products that only scaling brings below 65,504 give the finite answer that float64 gives."""
    sizes_of = torch.tensor([60.0, 30.0, 0.5, -60.0, 55.0])
    key = (sizes_of[:, None] * torch.ones(64)).half()[None, None]
    query = (torch.tensor([60.0, -55.0, 0.01])[:, None] * torch.ones(64)).half()[None, None]
    assert (query.float() @ key.float().transpose(-1, -2)).max() > 2 * 65504
    value = torch.randn((1, 1, 5, 64), generator=torch.Generator().manual_seed(0)).half()
    bias = None
    if is_biased:
        bias = torch.zeros((3, 5), dtype=torch.float16)
        bias[:, 0] = -torch.inf
    how = attention.How(scale=64**-0.5, softcap=softcap)
    result, sums = attention._attend_plainly(query, key, value, how, bias)
    scores = query.double() @ key.double().transpose(-1, -2) * how.scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores if bias is None else scores + bias.double()
    assert torch.isfinite(result).all() and torch.isfinite(sums).all()
    assert torch.allclose(result.double(), torch.softmax(scores, -1) @ value.double(), atol=5e-3)
    assert torch.allclose(sums.double(), torch.logsumexp(scores, -1), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"batch_size": 2}, {"share_prefixes": False}])
def test_a_prompt_that_goes_wrong_while_it_is_generated_from_is_the_one_named(
    tokenizer: Any, settings: dict[str, Any]
) -> None:
    """Demand: NaN after a few tokens of one text names its document, with others answered before."""
    model = llama(tokenizer, tie_word_embeddings=False)
    texts = [some_text(random.Random(n), 6) for n in range(12)]
    limits = [2 + n % 4 if n != 7 else 8 for n in range(12)]
    requests = asking("generate_until", *((t, {"max_gen_toks": m}) for t, m in zip(texts, limits, strict=True)))
    prompts = [tokenizer.encode(text) for text in texts]
    made = [
        model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False)[0, len(ids) :].tolist()
        for ids, most in zip(prompts, limits, strict=True)
    ]
    others = {token for n in range(12) for token in (prompts[n] + (made[n] if n != 7 else []))}
    bad = next(token for token in made[7][1:-1] if token not in others and token != made[7][0])
    lm = Declared(model, tokenizer, **settings)
    lm.generate_until(requests[:2], True)  # tried out with numbers
    with torch.no_grad():
        model.model.embed_tokens.weight[bad] = torch.nan
    with pytest.raises(HarnessError, match=r"document 7 in task 'asked'.*NaN"):
        lm.generate_until(requests, True)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"share_prefixes": False}])
@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_a_prompt_that_is_not_a_number_does_not_infect_those_beside_it(
    tokenizer: Any, settings: dict[str, Any], kind: str
) -> None:
    """Demand: of requests that begin alike, the one with the token that gives NaN is named, not a sibling."""
    model = llama(tokenizer, tie_word_embeddings=False)
    stem = some_text(random.Random(0), 12)
    texts = [f"{stem} {end}" for end in ("bank", "clock", "hour", "bakery? It", "sweets", "ledger")]
    requests = asking(kind, *((text, " a" if kind == "loglikelihood" else {"max_gen_toks": 4}) for text in texts))
    lm = CausalLM(model, tokenizer, **settings)
    getattr(lm, kind)(requests[:1], True)  # tried out with numbers
    [bad] = tokenizer.encode("?")
    assert [bad in tokenizer.encode(text) for text in texts] == [n == 3 for n in range(6)]
    with torch.no_grad():
        model.model.embed_tokens.weight[bad] = torch.nan
    with pytest.raises(HarnessError, match=r"document 3 in task 'asked'.*(?i:nan)"):
        getattr(lm, kind)(requests, True)
