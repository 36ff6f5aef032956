"""What a method or its user puts into an LM takes effect: overridden steps, patched objects, weights changed in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lm_eval_answers import (
    PROMPTS,
    asking,
    assert_scores,
    lm_eval_of,
    pairs,
)

from harness.errors import HarnessError
from harness.models.causal import CausalLM

Tensor = torch.Tensor


class NoTopToken(CausalLM):
    """A decoding method: the token that the model likes best is never taken."""

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        logits = super()._model_call(inps, *args, **kwargs)
        return logits.scatter(-1, logits.argmax(-1, keepdim=True), -30.0)


def test_a_method_that_overrides_the_forward_step_is_asked_for_every_score(model: Any, tokenizer: Any) -> None:
    """Demand: an overridden ``_model_call`` is in effect in every score, and nothing goes past it."""
    lm, reference = NoTopToken(model, tokenizer), lm_eval_of(model, tokenizer)
    assert lm.loglikelihood(pairs(), True) != reference.loglikelihood(pairs(), True)
    ids = tokenizer.encode("The clock")
    every = [(None, ids, [token]) for token in range(len(tokenizer))]
    ours, plain = (each._loglikelihood_tokens(every, disable_tqdm=True) for each in (lm, reference))
    [best] = [token for token, (_, is_best) in enumerate(plain) if is_best]
    assert ours[best][0] < plain[best][0] - 20
    assert not ours[best][1]
    best = int(model(torch.tensor([[0, *ids]])).logits[0, -1].argmax())
    [scores] = lm.token_loglikelihoods(asking("token_loglikelihoods", ("", [*ids, best])))
    assert scores[-1] < -20
    assert lm.work.plain_tokens == lm.work.pushed_tokens > 0
    assert "NoTopToken" in str(lm._sharing.refusal)


class Shouting(CausalLM):
    """A decoding method that overrides the generation step."""

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **kwargs: Any) -> Any:
        out = super()._model_generate(context, max_length, stop, **kwargs)
        return torch.cat([out[:, : context.shape[1]], torch.full_like(out[:, context.shape[1] :], 40)], 1)


def test_a_method_that_overrides_generation_is_asked_for_every_text(model: Any, tokenizer: Any) -> None:
    """Demand: an overridden ``_model_generate`` is in effect in every text."""
    letter = tokenizer.decode([40])
    assert all(text and set(text) == {letter} for text in Shouting(model, tokenizer).generate_until(PROMPTS, True))


def test_a_model_changed_after_the_first_scores_is_not_scored_as_before(model: Any, tokenizer: Any) -> None:
    """Demand: weights changed in place between two evaluations count in the second."""
    lm = CausalLM(model, tokenizer)
    first = lm.loglikelihood(pairs(), True)
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.mul_(-1)
        model.lm_head.weight.mul_(1.1)
    second = lm.loglikelihood(pairs(), True)
    assert first != second
    assert_scores(second, lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))


def test_the_model_is_left_as_it_was(model: Any, tokenizer: Any) -> None:
    """Demand: after scoring, generating and failing, no hook and no routed attention stays behind."""
    before = model.config._attn_implementation
    lm = CausalLM(model, tokenizer)
    lm.loglikelihood(pairs(), True)
    lm.generate_until(PROMPTS, True)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 3] = torch.nan
    with pytest.raises(HarnessError):
        lm.generate_until(PROMPTS, True)
    assert model.config._attn_implementation == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("is_late", [True, False])
def test_a_forward_step_put_on_the_object_takes_effect_and_is_said_once(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str], is_late: bool
) -> None:
    """Demand: ``lm._model_call = wrapped`` is behind every score, before or after the first ones; said once, kept."""
    lm = CausalLM(model, tokenizer)
    plain = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    if is_late:
        assert_scores(lm.loglikelihood(pairs(), True), plain)
    before = lm._model_call
    called: list[int] = []

    def wrapped(inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        called.append(1)
        return before(inps, *args, **kwargs) * 2

    lm._model_call = wrapped
    reference = lm_eval_of(model, tokenizer)
    ordinary = reference._model_call
    reference._model_call = lambda *args, **kwargs: ordinary(*args, **kwargs) * 2
    capsys.readouterr()
    for _ in range(2):
        assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
    lm.token_loglikelihoods(asking("token_loglikelihoods", ("", [5, 6])))
    assert called
    assert capsys.readouterr().err.count("_model_call of its own") == 1
    assert "_model_call" in str(lm.work.reason)


@pytest.mark.parametrize("is_late", [True, False])
def test_a_generate_put_on_the_model_takes_effect(model: Any, tokenizer: Any, is_late: bool) -> None:
    """Demand: ``model.generate = patched`` makes every text, before or after the first ones."""
    lm = CausalLM(model, tokenizer)
    requests = asking("generate_until", *((text, {"max_gen_toks": 4}) for text in ("The clock", "He")))
    if is_late:
        lm.generate_until(requests, True)
    model.generate = lambda input_ids, **_: torch.cat([input_ids, torch.full((len(input_ids), 4), 40)], 1)
    assert lm.generate_until(requests, True) == [tokenizer.decode([40] * 4)] * 2
