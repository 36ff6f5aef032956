"""Output heads: exchanged, wrapped, hooked, adapted or capped, what they give is what is scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lm_eval_answers import (
    PROMPTS,
    Declared,
    asking,
    assert_scores,
    build,
    is_shared,
    llama,
    lm_eval_of,
    pairs,
    sizes,
)

from harness.models.causal import CausalLM


@pytest.mark.parametrize("ties", [True, False])
def test_a_head_that_a_method_put_in_is_the_head_that_scores(tokenizer: Any, ties: bool) -> None:
    """Demand: a replaced output head, tied before or not, is in effect, and stays through ``replace``."""
    model = llama(tokenizer, tie_word_embeddings=ties)
    before = CausalLM(model, tokenizer).loglikelihood(pairs(), True)
    head = torch.nn.Linear(32, len(tokenizer), bias=True)
    torch.nn.init.normal_(head.weight, std=0.5)
    model.set_output_embeddings(head)
    lm = CausalLM(model, tokenizer).replace(tokenizer=tokenizer)
    ours = lm.loglikelihood(pairs(), True)
    assert lm.model.get_output_embeddings() is head
    assert abs(ours[0][0] - before[0][0]) > 0.1
    assert_scores(ours, lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert is_shared(lm)


def test_a_head_that_is_more_than_one_matrix_is_called_as_it_is(model: Any, tokenizer: Any) -> None:
    """Demand: a declared head of a method's own is run itself, not its weights; and texts follow it."""
    model.set_output_embeddings(
        torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh(), model.get_output_embeddings())
    )
    model.lm_head[0].requires_grad_(False)
    lm = Declared(model, tokenizer)
    reference = lm_eval_of(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
    assert lm.generate_until(PROMPTS, True) == reference.generate_until(PROMPTS, True)


def negate_head(model: Any) -> None:
    """Replace the forward of the output head itself."""
    before = model.lm_head.forward
    model.lm_head.forward = lambda hidden_states: -before(hidden_states)


def prepare_head(model: Any) -> None:
    """Let a hook change what the output head is given."""
    model.lm_head.register_forward_pre_hook(lambda module, inputs: (1.5 * inputs[0],))


def hook_head(model: Any) -> None:
    """Let a hook change what the output head gives."""
    model.lm_head.register_forward_hook(lambda module, inputs, output: output.tanh())


def clamp_logits(model: Any) -> None:
    """Bound the logits after the head, where some texts reach the bound and the first tokens of texts do not."""
    before = model.forward

    def forward(*arguments: Any, **settings: Any) -> Any:
        out = before(*arguments, **settings)
        out.logits = out.logits.clamp(max=BOUND)
        return out

    model.forward = forward


BOUND = 4.5


@pytest.mark.parametrize("change", [negate_head, prepare_head, hook_head, clamp_logits])
def test_what_a_method_does_about_the_head_is_in_effect_or_refused(model: Any, tokenizer: Any, change: Any) -> None:
    """Demand: declared or not, a changed output head or changed logits are never passed by."""
    plain = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    change(model)
    theirs = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    assert max(abs(a - b) for (a, _), (b, _) in zip(plain, theirs, strict=True)) > 0.01
    assert_scores(CausalLM(model, tokenizer).loglikelihood(pairs(), True), theirs)
    assert_scores(Declared(model, tokenizer).loglikelihood(pairs(), True), theirs)


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": ["lm_head", "o_proj"]}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}],
)
def test_an_adapter_on_the_head_is_in_effect(tokenizer: Any, settings: dict[str, Any]) -> None:
    """Demand: PEFT's ways to train the output head are scored with it, on the fast path."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(llama(tokenizer), LoraConfig(r=4, init_lora_weights=False, **settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert lm.generate_until(PROMPTS, True) == lm_eval_of(model, tokenizer).generate_until(PROMPTS, True)
    assert is_shared(lm)


@pytest.mark.parametrize("cap", [0.5, 30.0, None])
def test_caps_on_logits_are_kept(tokenizer: Any, cap: float | None) -> None:
    """Demand: what a model does to its logits after the head is done to ours, blocks of the vocabulary or not."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    settings = {"head_dim": 8, "query_pre_attn_scalar": 8, "vocab_size": 5000, "final_logit_softcapping": cap}
    model = build(Gemma2ForCausalLM, Gemma2Config(**(sizes(tokenizer) | settings)))
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert is_shared(lm)


def new_head(model: Any) -> None:
    """Exchange the output head."""
    head = torch.nn.Linear(32, model.config.vocab_size, bias=True)
    torch.nn.init.normal_(head.weight, std=0.5)
    model.set_output_embeddings(head)


def hook_layer(model: Any) -> None:
    """Let a hook change what a layer gives."""
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 1.5)


@pytest.mark.parametrize("change", [new_head, hook_layer, hook_head, negate_head])
@pytest.mark.parametrize("kind", [CausalLM, Declared])
def test_what_is_changed_between_two_calls_is_noticed(model: Any, tokenizer: Any, change: Any, kind: Any) -> None:
    """Demand: a head exchanged or a hook added after the first scores counts in the next scores and texts."""
    requests = asking("generate_until", *((text, {"max_gen_toks": 8}) for text in ("The clock", "A bank", "He")))
    lm = kind(model, tokenizer)
    first, texts = lm.loglikelihood(pairs(), True), lm.generate_until(requests, True)
    assert is_shared(lm)
    change(model)
    reference = lm_eval_of(model, tokenizer)
    theirs = reference.loglikelihood(pairs(), True)
    assert max(abs(a - b) for (a, _), (b, _) in zip(first, theirs, strict=True)) > 0.01
    assert_scores(lm.loglikelihood(pairs(), True), theirs)
    assert lm.generate_until(requests, True) == reference.generate_until(requests, True)
    assert change is hook_head or reference.generate_until(requests, True) != texts
