"""Sharing is tried out before it is trusted: wrong promises, wrong attention and wrong windows are caught."""

from __future__ import annotations

import random
from dataclasses import replace
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
    some_text,
)

from harness.models.causal import CausalLM
from harness.models.tree import tree_attention

Tensor = torch.Tensor


class Doubled(torch.nn.Module):
    """A method's part that looks at each token alone."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return twice what the part inside returns."""
        out: Tensor = self.inner(hidden_states)
        return 2 * out


class Smeared(Doubled):
    """A part that mixes in the token before: not what stands before it in the text once texts share a pass."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return a mixture with the token before."""
        out: Tensor = self.inner(hidden_states)
        return out + 0.5 * torch.nn.functional.pad(out[:, :-1], (0, 0, 1, 0))


def add_part(model: Any, _: Any = None) -> None:
    model.model.layers[0].mlp = Doubled(model.model.layers[0].mlp)


def add_hook(model: Any) -> None:
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: output * 1.5)


def replace_forward(model: Any) -> None:
    before = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = lambda hidden_states: -before(hidden_states)


@pytest.mark.parametrize("change", [add_part, add_hook, replace_forward])
def test_parts_of_a_method_are_shared_only_once_it_vouches_for_them(model: Any, tokenizer: Any, change: Any) -> None:
    """Demand: foreign modules, hooks and replaced forwards go lm-eval's way; declared plain causal, they share."""
    before = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    change(model)
    theirs = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    assert before != theirs
    careful, vouched = CausalLM(model, tokenizer), Declared(model, tokenizer)
    assert_scores(careful.loglikelihood(pairs(), True), theirs)
    assert careful.work.plain_tokens == careful.work.pushed_tokens > 0
    assert "not declared plain causal" in str(careful._sharing.refusal)
    assert_scores(vouched.loglikelihood(pairs(), True), theirs)
    assert vouched.generate_until(PROMPTS, True) == lm_eval_of(model, tokenizer).generate_until(PROMPTS, True)
    assert is_shared(vouched)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_wrong_promise_is_caught_by_the_try_out(model: Any, tokenizer: Any, layer: int) -> None:
    """Demand: a part that looks at its neighbour in the batch is found out even when declared, before any score."""
    model.model.layers[layer].mlp = Smeared(model.model.layers[layer].mlp)
    lm = Declared(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert "differ" in str(lm._sharing.refusal)
    assert lm.work.plain_tokens == lm.work.pushed_tokens > 0


@pytest.mark.parametrize("mistake", ["sibling", "ancestor"])
def test_a_mistake_in_shared_attention_is_caught_by_the_try_out(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    """Demand: were a token shown one sibling, or not shown one ancestor, the fast path would refuse itself."""
    from harness.models.tree import tree_attention

    pieces = tree_attention._branch_pieces

    def wrong(*arguments: Any) -> Any:
        made = pieces(*arguments)
        for piece in made:
            assert piece.allowed is not None
            piece.allowed = piece.allowed.clone()
            piece.allowed[:, -1, -2 if mistake == "sibling" else 0] = mistake == "sibling"
            if mistake == "sibling":
                piece.allowed[:, 0, -1] = True
        return made

    monkeypatch.setattr(tree_attention, "_branch_pieces", wrong)
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert "differ" in str(lm._sharing.refusal)


def test_lora_shares_and_prompt_tuning_does_not(tokenizer: Any) -> None:
    """Demand: PEFT adapters that change each token alone are fast; virtual tokens go lm-eval's way."""
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    lora = get_peft_model(
        llama(tokenizer), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    )
    lora.eval()
    lm, reference = CausalLM(lora, tokenizer), lm_eval_of(lora, tokenizer)
    theirs = reference.loglikelihood(pairs(), True)
    assert_scores(lm.loglikelihood(pairs(), True), theirs)
    assert lm.generate_until(PROMPTS, True) == reference.generate_until(PROMPTS, True)
    assert is_shared(lm)
    with lora.disable_adapter():
        assert abs(reference.loglikelihood(pairs(), True)[0][0] - theirs[0][0]) > 0.1

    tuned = get_peft_model(llama(tokenizer), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    tuned.eval()
    lm = CausalLM(tuned, tokenizer, batch_size=1)
    assert lm.generate_until(PROMPTS, True) == lm_eval_of(tuned, tokenizer).generate_until(PROMPTS, True)
    assert "virtual tokens" in str(lm._sharing.refusal)


def test_a_first_text_of_one_token_over_and_over_is_tried_out(model: Any, tokenizer: Any) -> None:
    """Demand: such a request is shared and scored right."""
    [token] = tokenizer.encode("a")
    requests = asking("loglikelihood", ("a" * 30, "a" * 10))
    assert set(tokenizer.encode("a" * 30)) == {token}
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(requests, True), lm_eval_of(model, tokenizer).loglikelihood(requests, True))
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert is_shared(lm) and lm.work.check_tokens > 0


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_wrong_window_is_found_out_whatever_the_first_text_is(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, is_repeated: bool
) -> None:
    """Demand: the try-out beyond a sliding window tells wrong windows, with a first text of one token, too."""
    from transformers import MistralConfig, MistralForCausalLM

    model = build(MistralForCausalLM, MistralConfig(**(sizes(tokenizer) | {"sliding_window": 40, "head_dim": 8})))
    right = tree_attention.TreeAttention.attend

    def wrong(self: Any, query: Tensor, key: Tensor, value: Tensor, how: Any) -> Tensor:
        is_beyond = how.window is not None and self.longest > how.window
        return right(self, query, key, value, replace(how, window=how.window - 8) if is_beyond else how)

    monkeypatch.setattr(tree_attention.TreeAttention, "attend", wrong)
    lm = CausalLM(model, tokenizer)
    text = "a" * 60 if is_repeated else some_text(random.Random(0), 40)
    assert len(tokenizer.encode(text)) > 40
    later = asking("loglikelihood", (some_text(random.Random(1), 60), " clock"))
    lm.loglikelihood(asking("loglikelihood", (text, "a")), True)
    assert_scores(lm.loglikelihood(later, True), lm_eval_of(model, tokenizer).loglikelihood(later, True))
    assert "differ" in str(lm._sharing.refusal)


class Averaged(Doubled):
    """A part that mixes in the mean of all tokens of a pass, padding as well."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return a mixture with the mean."""
        out: Tensor = self.inner(hidden_states)
        return out + 0.3 * out.mean(1, keepdim=True)


def test_what_padding_changes_is_no_excuse_in_float32(model: Any, tokenizer: Any) -> None:
    """A part that looks at padding too moves plain logits by as much as sharing does: that is not rounding."""
    model.model.layers[0].mlp = Averaged(model.model.layers[0].mlp)
    lm = Declared(model, tokenizer)
    lm.loglikelihood(pairs(), True)
    assert "differ" in str(lm._sharing.refusal)
