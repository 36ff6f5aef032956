"""Models of many architectures, tiny and with large random weights: answered together, the answers are lm-eval's."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from lm_eval_answers import (
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

WINDOW = 16
HALF = {"head_dim": 8, "sliding_window": WINDOW}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 1e4,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
}  # fmt: skip
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
DEEPSEEK = {
    "num_key_value_heads": 4, "moe_intermediate_size": 32, "n_routed_experts": 8, "n_group": 2, "topk_group": 2,
    "num_experts_per_tok": 2, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "qk_nope_head_dim": 8, "first_k_dense_replace": 1,
}  # fmt: skip
NEO = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW}
RECURRENT = {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64, "head_dim": 8}
# Architecture: the name that its classes in transformers begin with, and what its configuration sets.
SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, biases and tied": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama, one key head": ("Llama", {"num_key_value_heads": 1}),
    "llama, yarn": ("Llama", {"rope_parameters": YARN}),
    "llama, llama3 rope": ("Llama", {"rope_parameters": LLAMA3}),
    "gpt2": ("GPT2", GPT2_SIZES),
    "gpt2, scaled by layer": ("GPT2", GPT2_SIZES | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt-neox": ("GPTNeoX", {}),
    "gpt-neox, serial": ("GPTNeoX", {"use_parallel_residual": False, "rotary_pct": 1.0}),
    "gpt-j": ("GPTJ", GPT2_SIZES | {"rotary_dim": 4}),
    "opt": ("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "mixtral": ("Mixtral", EXPERTS),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", HALF | {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3", HALF | {"query_pre_attn_scalar": 8}),
    "qwen2": ("Qwen2", {}),
    "qwen2, window in one layer": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen2-moe": ("Qwen2Moe", {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "qwen3-moe": ("Qwen3Moe", {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2}),
    "phi": ("Phi", {}),
    "phi3": ("Phi3", {}),
    "olmo2": ("Olmo2", {}),
    "stablelm": ("StableLm", {"use_parallel_residual": True}),
    "starcoder2": ("Starcoder2", {"sliding_window": WINDOW}),
    "gpt-bigcode": ("GPTBigCode", GPT2_SIZES),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "cohere": ("Cohere", {"logit_scale": 0.25}),
    "cohere2": ("Cohere2", {"sliding_window": WINDOW}),
    "granite": ("Granite", {"logits_scaling": 4.0, "attention_multiplier": 0.1, "embedding_multiplier": 3.0}),
    "deepseek-v3": ("DeepseekV3", DEEPSEEK),
    "gpt-oss": ("GptOss", HALF | EXPERTS),
}  # fmt: skip
OWN, TRIED, STATE = "layers have attention that can be routed", "trying it ended in", "its layers keep a state"
# These do what cannot be shared: places that attention knows of itself, or a state that is carried along.
PLAIN: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt-neo": ("GPTNeo", NEO, OWN),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4}, OWN),
    "mpt": ("Mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}, TRIED),
    "falcon": ("Falcon", {"alibi": True}, TRIED),
    "mamba": ("Mamba", {"state_size": 8}, STATE),
    "jamba": ("Jamba", EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8}, STATE),
    "recurrent-gemma": ("RecurrentGemma", RECURRENT, STATE),
}  # fmt: skip


def made(tokenizer: Any, name: str, settings: dict[str, Any]) -> Any:
    """Return a tiny causal model of the architecture whose classes begin with ``name``."""
    import transformers

    config = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    return build(getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}LMHeadModel"),
                 config(**(sizes(tokenizer) | settings)))  # fmt: skip


def requests() -> tuple[list[Any], list[Any], list[Any]]:
    """Return requests with a long beginning in common, choices, and texts that have nothing to do with each other.

    Log-likelihoods, rolling ones and generations; most are longer than the sliding windows of these tests.
    """
    generator = random.Random(0)
    shared = some_text(generator, 25)
    contexts = [shared, *(f"{shared} {some_text(generator, 6)}" for _ in range(3)), some_text(generator, 8), ""]
    pairs = [(context, f" {some_text(generator, count)}") for context in contexts for count in (1, 1, 7)]
    texts = [some_text(generator, 14), f"{shared} {some_text(generator, 4)}", "a"]
    settings = {"until": ["\n\n", "the"], "max_gen_toks": 16}
    prompts = [(context, settings) for context in contexts if context] + [("Wh", settings)]
    return (
        asking("loglikelihood", *pairs),
        asking("loglikelihood_rolling", *((t,) for t in texts)),
        asking("generate_until", *prompts),
    )


def answers_of(lm: Any) -> tuple[list[tuple[float, bool]], list[float], list[str]]:
    """Return an LM's answers to requests of every kind."""
    pairs, texts, prompts = requests()
    return lm.loglikelihood(pairs, True), lm.loglikelihood_rolling(texts, True), lm.generate_until(prompts, True)


def assert_same(ours: Any, theirs: Any) -> None:
    """Fail unless the answers are the same: scores within 1e-3, greedy flags and texts exactly."""
    assert_scores(ours[0], theirs[0])
    assert ours[1] == pytest.approx(theirs[1], abs=1e-3)
    assert ours[2] == theirs[2]


@pytest.mark.parametrize("architecture", SHARED)
def test_requests_are_answered_together_with_the_answers_of_lm_eval(tokenizer: Any, architecture: str) -> None:
    """Demand: equal scores, greedy flags and texts for every usual architecture, on the fast path alone.

    With room for all requests in one pass, and with so little that beginnings are kept as trunks.
    """
    model = made(tokenizer, *SHARED[architecture])
    theirs = answers_of(lm_eval_of(model, tokenizer))
    for batch_size in ("auto", 1):
        lm = CausalLM(model, tokenizer, batch_size=batch_size)
        assert_same(answers_of(lm), theirs)
        assert lm._sharing.refusal is None
        assert lm.work.plain_tokens == 0
        assert lm.work.distinct_tokens <= lm.work.pushed_tokens < lm.work.requested_tokens


@pytest.mark.parametrize("architecture", PLAIN)
def test_models_that_cannot_share_are_answered_as_lm_eval_does(tokenizer: Any, architecture: str) -> None:
    """Demand: the fast path steps aside by itself, says why, and the answers are lm-eval's."""
    name, settings, reason = PLAIN[architecture]
    model = made(tokenizer, name, settings)
    lm = CausalLM(model, tokenizer, batch_size=1)
    assert_same(answers_of(lm), answers_of(lm_eval_of(model, tokenizer)))
    assert reason in str(lm._sharing.refusal)
    assert lm.work.reason == lm._sharing.refusal
    assert lm.work.plain_tokens == lm.work.pushed_tokens > 0


@torch.no_grad()
def test_texts_at_the_edge_of_a_sliding_window_have_the_scores_of_lm_eval(tokenizer: Any) -> None:
    """Demand: a window counts its keys as the model does, at every length around it, one branch or many."""
    model = made(tokenizer, *SHARED["mistral"])
    ids = [random.Random(0).randrange(1, len(tokenizer)) for _ in range(3 * WINDOW)]
    windows = [
        (None, ids[:length], [ids[length], last]) for length in range(WINDOW - 4, WINDOW + 6) for last in (5, 7)
    ] + [(None, ids[:10], ids[10:]), (None, ids[:4], ids[20:])]
    theirs = lm_eval_of(model, tokenizer)._loglikelihood_tokens(windows, disable_tqdm=True)
    for batch_size in ("auto", 1):
        lm = CausalLM(model, tokenizer, batch_size=batch_size)
        assert_scores(lm._loglikelihood_tokens(windows, disable_tqdm=True), theirs)
        assert is_shared(lm)


@torch.no_grad()
def test_texts_beyond_the_length_that_changes_rope_go_alone(tokenizer: Any) -> None:
    """Demand: where the length of a text changes its places (LongRoPE), only texts on one side of it share."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope["original_max_position_embeddings"] = 24
    model = made(tokenizer, "Phi3", {"rope_parameters": rope, "original_max_position_embeddings": 24})
    ids = [random.Random(0).randrange(1, len(tokenizer)) for _ in range(60)]
    windows = [(None, ids[: length - 1], [ids[length], 9]) for length in (10, 22, 23, 24, 25, 26, 40)]
    lm = CausalLM(model, tokenizer)
    ours = lm._loglikelihood_tokens(windows, disable_tqdm=True)
    assert_scores(ours, lm_eval_of(model, tokenizer)._loglikelihood_tokens(windows, disable_tqdm=True))
    assert lm._sharing.refusal is None
    assert 0 < lm.work.plain_tokens < lm.work.pushed_tokens


def test_double_precision_agrees_to_a_millionth(tokenizer: Any) -> None:
    """Demand: what is left between both ways is rounding alone; a mistake would not shrink with the precision.

    lm-eval's log-probabilities are asked for in float64 here; ours are of float32, whose rounding is what is allowed.
    """
    model = llama(tokenizer, initializer_range=0.15).double()
    pairs, texts, _ = requests()
    lm, reference = CausalLM(model, tokenizer, batch_size=1), lm_eval_of(model, tokenizer, softmax_dtype="float64")
    ours = lm.token_loglikelihoods(
        asking("token_loglikelihoods", *(("", tokenizer.encode(t)) for (t,) in (r.args for r in texts)))
    )
    theirs = reference.loglikelihood_rolling(texts, True)
    assert [sum(scores) for scores in ours] == pytest.approx(theirs, rel=1e-6)
    assert [a for a, _ in lm.loglikelihood(pairs, True)] == pytest.approx(
        [a for a, _ in reference.loglikelihood(pairs, True)], rel=1e-6
    )
    assert is_shared(lm)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt-oss"])
def test_bfloat16_is_as_near_to_full_precision_as_lm_eval_is(tokenizer: Any, architecture: str) -> None:
    """Demand: in low precision the fast path adds no error of its own: on average at most twice that of lm-eval."""
    name, settings = SHARED[architecture]
    model = made(tokenizer, name, settings | {"initializer_range": 0.1})
    pairs = requests()[0]
    exact = [score for score, _ in lm_eval_of(model, tokenizer).loglikelihood(pairs, True)]
    theirs = [score for score, _ in lm_eval_of(model.to(torch.bfloat16), tokenizer).loglikelihood(pairs, True)]
    for batch_size in ("auto", 1):
        lm = CausalLM(model, tokenizer, batch_size=batch_size)
        ours = [score for score, _ in lm.loglikelihood(pairs, True)]
        # Where rounding alone moves logits a lot, as where it decides between experts, the try-out may say no.
        assert is_shared(lm) or "differ" in str(lm._sharing.refusal)
        assert _distance(ours, exact) <= 2 * _distance(theirs, exact)


def _distance(scores: list[float], others: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(scores, others, strict=True)) / len(scores)


@pytest.mark.parametrize("limit", [4, 40])
def test_a_first_prompt_shorter_than_the_window_is_no_obstacle(tokenizer: Any, limit: int) -> None:
    """Demand: the try-out for texts beyond the window needs no long text: a prompt of one token is enough."""
    model = made(tokenizer, *SHARED["mistral"])
    prompts = asking("generate_until", ("a", {"until": ["\n\n"], "max_gen_toks": limit}))
    lm = CausalLM(model, tokenizer)
    assert lm.generate_until(prompts, True) == lm_eval_of(model, tokenizer).generate_until(prompts, True)
    assert is_shared(lm)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_gives_the_scores_of_lm_eval(model: Any, tokenizer: Any, dtype: str) -> None:
    """Demand: ``mixed_precision_dtype`` is in effect in the head as in the layers, and scores are lm-eval's to rounding."""
    lm = CausalLM(model, tokenizer, mixed_precision_dtype=dtype)
    theirs = lm_eval_of(model, tokenizer, mixed_precision_dtype=dtype).loglikelihood(pairs(), True)
    assert [a for a, _ in lm.loglikelihood(pairs(), True)] == pytest.approx([a for a, _ in theirs], abs=0.3)
    # Rounding of this kind moves logits by several percent; on some machines too much for the try-out.
    assert is_shared(lm) or "differ" in str(lm._sharing.refusal)


def test_gemma_4_with_other_key_heads_in_its_global_layers_generates_as_lm_eval_does(tokenizer: Any) -> None:
    """Demand: layers whose key heads and widths differ have caches and trunks of their own shapes."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Gemma4TextConfig"):
        pytest.skip("transformers has no Gemma 4")
    config = transformers.Gemma4TextConfig(**(sizes(tokenizer) | GEMMA4))
    model = build(transformers.Gemma4ForCausalLM, config)
    assert len({layer.self_attn.k_proj.weight.shape[0] for layer in model.model.layers}) == 2
    settings = {"until": ["\n\n"], "max_gen_toks": 12}
    stem = some_text(random.Random(0), 8)
    texts = ("The clock", "A bank", "He", *(f"{stem} {word}" for word in ("and", "or", "but")))
    requests = asking("generate_until", *((text, settings) for text in texts))
    reference = lm_eval_of(model, tokenizer)
    for batch_size in ("auto", 2):
        lm = CausalLM(model, tokenizer, batch_size=batch_size)
        assert lm.generate_until(requests, True) == reference.generate_until(requests, True)
        assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
        assert is_shared(lm), lm._sharing.refusal


GEMMA4 = {
    "head_dim": 8,
    "global_head_dim": 32,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 400,
}


def tiny_t5(tokenizer: Any) -> Any:
    """Return a tiny encoder-decoder."""
    from transformers import T5Config, T5ForConditionalGeneration

    return build(
        T5ForConditionalGeneration,
        T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, n_positions=128,
            initializer_factor=2.0, pad_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        ),
    )  # fmt: skip


def test_an_encoder_decoder_scores_as_lm_eval_does(tokenizer: Any) -> None:
    """Demand: a T5 handed over as an object is lm-eval's seq2seq, and the reason why nothing is shared is said."""
    model = tiny_t5(tokenizer)
    lm, reference = CausalLM(model, tokenizer), lm_eval_of(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
    assert "encoder-decoder" in str(lm.work.reason)
