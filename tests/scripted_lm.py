"""A language model whose next token depends on the last one alone, with probabilities that a test writes down.

It is a real Llama: one layer that adds nothing, embeddings that are unit vectors, a head made of log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from harness.models.causal import CausalLM

NEVER = -1000.0


def scripted_lm(
    tokenizer: Any, script: Mapping[int, Mapping[int, float]], *, dtype: torch.dtype = torch.float32, **settings: Any
) -> CausalLM:
    """Return an LM that writes ``next`` after ``last`` with probability ``script[last][next]``, end-of-text after others."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = len(tokenizer)
    width = size + size % 2
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        rms_norm_eps=0.0,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in (model.model.layers[0].self_attn.o_proj.weight, model.model.layers[0].mlp.down_proj.weight):
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size, width))
        logits = torch.full((size, size), NEVER)  # (last, next)
        for last in range(size):
            for following, probability in script.get(last, {tokenizer.eos_token_id: 1.0}).items():
                logits[last, following] = math.log(probability)
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, :size] = logits.T / math.sqrt(width)
    return CausalLM(model.to(dtype), tokenizer, **settings)
