"""What the tests of ``CausalLM`` share: requests, lm-eval's own answers to them, and models built from config."""

from __future__ import annotations

import math
import random
from typing import Any, ClassVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny_models import PARAGRAPH, SIZES

from harness.models.causal import CausalLM

WORDS = PARAGRAPH.split()
ODD = [
    "naïve café",
    "日本語のテキスト",
    "🙂🙃 emoji",
    "a\u0301",
    "\t\ttabs",
    "  two",
    "x" * 40,
    "line\nbreak",
    "<|end|>",
]


def some_text(generator: random.Random, count: int) -> str:
    """Return ``count`` random words of the paragraph."""
    return " ".join(generator.choice(WORDS) for _ in range(count))


def asking(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    """Return one request for each tuple of arguments, of documents 0, 1, ... of the task ``asked``."""
    return [Instance(kind, {}, args, 0, ("asked", number, 1)) for number, args in enumerate(arguments)]


def llama(tokenizer: Any, **settings: Any) -> Any:
    """Return a tiny Llama whose large random weights give every token its say."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return build(LlamaForCausalLM, LlamaConfig(**(sizes(tokenizer) | settings)))


def sizes(tokenizer: Any) -> dict[str, Any]:
    """Return what most configurations of transformers call the sizes of a two-layer, 32-wide model."""
    return SIZES | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }


def build(kind: Any, config: Any, *, seed: int = 0) -> Any:
    """Return a model with random weights, biases and norms too, so that each of them matters."""
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "sinks" not in name and "A_log" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.generation_config.pad_token_id = 0
    return model


def lm_eval_of(model: Any, tokenizer: Any, **settings: Any) -> HFLM:
    """Return lm-eval's own class around the model, one request at a time."""
    return HFLM(pretrained=model, tokenizer=tokenizer, **({"batch_size": 1, "softmax_dtype": "float32"} | settings))


def assert_scores(ours: list[tuple[float, bool]], theirs: list[tuple[float, bool]], tolerance: float = 1e-3) -> None:
    """Fail unless every log-probability is within ``tolerance`` and every claim to be the likeliest text is the same."""
    assert len(ours) == len(theirs)
    worst = max(abs(a - b) for (a, _), (b, _) in zip(ours, theirs, strict=True))
    assert math.isfinite(worst) and worst < tolerance
    assert [best for _, best in ours] == [best for _, best in theirs]


def is_shared(lm: Any) -> bool:
    """Return whether everything so far went the fast way."""
    return lm._sharing.refusal is None and lm.work.plain_tokens == 0 and lm.work.pushed_tokens > 0


def pairs(count: int = 12) -> list[Any]:
    """Return log-likelihood requests, three to a context, whose contexts begin alike."""
    generator = random.Random(0)
    shared = some_text(generator, 12)
    contexts = [f"{shared} {some_text(generator, 4)}" for _ in range(count // 3)]
    return asking("loglikelihood", *((c, f" {some_text(generator, n)}") for c in contexts for n in (1, 2, 5)))


PROMPTS = asking(
    "generate_until", *((text, {"until": ["\n\n"], "max_gen_toks": 12}) for text in ("The clock", "A bank", "He"))
)


TEXTS = asking("loglikelihood_rolling", ("The clock ticked.",), ("A bakery and a bank",))


class Declared(CausalLM):
    """A method's LM that vouches for the parts it put into the model."""

    is_plain_causal: ClassVar[bool] = True
