"""The models, tokenizer and requests of ``on_gpu.py``: random weights of every size, made where they are needed."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from scoring_cases import WORDED, Cases, read_questions

from harness.errors import HarnessError
from harness.models.finding import resolve
from harness.models.loading import load_lm

__all__ = ["WORDED"]
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WINDOW = 24
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def tokenizer(place: Any) -> Any:
    """Return the default model's tokenizer; one trained here at a smaller scale, or where that model is not installed."""
    if place.scale < 1:
        return _trained_tokenizer()
    try:
        return resolve({}, needs_weights=False).load_tokenizer()
    except (HarnessError, ImportError, OSError):
        return _trained_tokenizer()


def _trained_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text for pair in read_questions(None) for text in pair], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>")


def _tiny(name: str, **settings: Any) -> Callable[[int], Any]:
    """Return what builds a tiny model of the architecture whose classes in transformers begin with ``name``."""

    def build(vocabulary: int) -> Any:
        import transformers

        config = getattr(transformers, f"{name}Config")(
            vocab_size=vocabulary, max_position_embeddings=2048, initializer_range=0.2, bos_token_id=None,
            eos_token_id=None, pad_token_id=None, **(TINY | settings),
        )  # fmt: skip
        torch.manual_seed(0)
        kind = getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}LMHeadModel")
        return kind(config).eval()

    return build


ARCHITECTURES = {
    "grouped heads": _tiny("Llama", head_dim=64),
    "learned positions": _tiny("GPT2", n_embd=64, n_layer=3, n_head=4, n_positions=2048),
    "sliding windows": _tiny("Mistral", sliding_window=WINDOW, head_dim=16),
    "windows and soft caps": _tiny(
        "Gemma2",
        sliding_window=WINDOW,
        head_dim=16,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
    ),
    "windows and sinks": _tiny("GptOss", sliding_window=WINDOW, head_dim=16, **EXPERTS),
    "experts": _tiny("Mixtral", **EXPERTS),
}


def _llama(vocabulary: int, device: torch.device, dtype: torch.dtype, **sizes: int) -> Any:
    """Return a Llama of random weights, made on the device in its own type."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=8192, initializer_range=0.05, bos_token_id=None, eos_token_id=None,
        **sizes,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def middling(place: Any, vocabulary: int) -> Any:
    """Return the shape of SmolLM2-135M at full scale, fewer layers and a third of the width below it."""
    heads = 3 if place.scale >= 1 else 1
    return _llama(
        vocabulary, place.device, torch.float32, hidden_size=192 * heads, intermediate_size=512 * heads,
        num_attention_heads=3 * heads, num_key_value_heads=heads, num_hidden_layers=place.count(30, 2),
    )  # fmt: skip


def default(place: Any, vocabulary: int) -> Any:
    """Return the default model where it is installed and all of it is asked for, else its shape with random weights."""
    if place.scale < 1:
        return middling(place, vocabulary)
    try:
        lm: Any = load_lm(resolve({"dtype": "float32"}), device=str(place.device), batch_size="auto")
    except HarnessError:
        return middling(place, vocabulary)
    return lm.model


def billion(place: Any, vocabulary: int) -> Any:
    """Return 1.5 B weights in bfloat16."""
    return _llama(
        max(128_256, vocabulary), place.device, torch.bfloat16, hidden_size=2048, intermediate_size=8192,
        num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=place.count(16, 2),
    )  # fmt: skip


def large(place: Any, vocabulary: int) -> tuple[Any, float]:
    """Return a Llama in bfloat16 and its billions of weights: 8 at full scale, or what fits half of the device's free memory."""
    layers = place.count(32, 2)
    hidden = max(256, 128 * round(32 * math.sqrt(min(1.0, place.scale))))
    if place.device.type == "cuda":
        free = torch.cuda.mem_get_info(place.device)[0]
        layers = max(2, min(layers, int(32 * 0.5 * free / 16e9)))
    words = max(vocabulary, round(128_256 * min(1.0, place.scale)))
    model = _llama(
        words, place.device, torch.bfloat16, hidden_size=hidden, intermediate_size=hidden * 7 // 2,
        num_attention_heads=hidden // 128, num_key_value_heads=max(1, hidden // 512), num_hidden_layers=layers,
    )  # fmt: skip
    return model, sum(parameter.numel() for parameter in model.parameters()) / 1e9


@contextmanager
def saved(place: Any, tokenizer: Any) -> Iterator[Path]:
    """Give a folder with ``middling`` and a tokenizer, as a user would have it."""
    from transformers import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        middling(place, len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield Path(folder)


def requests(count: int) -> list[list[Any]]:
    """Return choices with shared beginnings, documents to roll over, and prompts to answer."""
    cases = Cases(read_questions(None), limit=12)
    shots = cases.shots(cases.questions[:1])
    choices = [
        *cases.choices(count, lambda _: WORDED, lambda _: shots),
        *cases.choices(count, lambda _: ("A", "B"), lambda _: ""),
    ]
    return [choices, cases.rolling()[:4], cases.generation(count, shots)]


@dataclass
class Answers:
    """What an LM answered: sums of log-probabilities, whether each was greedy, texts."""

    sums: list[float]
    greedy: list[bool]
    texts: list[str]


def answers(lm: Any, asked: list[list[Any]]) -> Answers:
    """Return an LM's answers to ``requests``."""
    choices, rolling, prompts = (
        [Instance(r.request_type, {}, r.arguments, r.idx, r.metadata) for r in part] for part in asked
    )
    found = lm.loglikelihood(choices, disable_tqdm=True)
    sums = [value for value, _ in found] + list(lm.loglikelihood_rolling(rolling, disable_tqdm=True))
    return Answers(sums, [is_greedy for _, is_greedy in found], lm.generate_until(prompts, disable_tqdm=True))


def largest(one: Answers, other: Answers) -> float:
    """Return the largest difference of two LMs' sums, relative to a hundredth of a long sum."""
    return max(abs(a - b) / max(1.0, abs(b) / 100) for a, b in zip(one.sums, other.sums, strict=True))


def spread(one: Answers, other: Answers) -> float:
    """Return the root mean square of the differences of two LMs' sums."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one.sums, other.sums, strict=True)) / len(one.sums))
