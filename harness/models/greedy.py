"""Greedy search as lm-eval means it: which requests are no more than that, where their texts end, how they are cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from transformers import GenerationMixin

from harness.models.tree.generation import Prompt

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

# What a request may set without leaving greedy search: these say how long, or matter to sampling alone.
HARMLESS = frozenset({"do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p"})
NEUTRAL = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "use_cache": True, "min_length": 0}
# What a checkpoint's generation settings may hold beside these: names of tokens, and how the answer is packed.
INERT = frozenset({
    "pad_token_id", "bos_token_id", "eos_token_id", "max_length", "transformers_version", "cache_implementation",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
    "_from_model_config", "temperature", "top_p", "top_k", "min_p", "typical_p", "do_sample", "num_return_sequences",
    "decoder_start_token_id", "early_stopping", "length_penalty",
})  # fmt: skip


@dataclass(frozen=True)
class GreedyUntil:
    """A greedy generation: at most ``limit`` tokens, ended by any of ``until``."""

    limit: int
    until: tuple[str, ...]


def greedy_until(settings: dict[str, Any], most: int, end_of_text: str) -> GreedyUntil | None:
    """Return what a request's settings ask for, or None when that is more than greedy search.

    Args:
        most: the tokens to generate where the settings do not say.
        end_of_text: ends every generation.
    """
    kwargs = normalize_gen_kwargs(settings, most)
    limit = int(kwargs.pop("max_gen_toks"))
    until = handle_stop_sequences(kwargs.pop("until", None), eos=end_of_text)
    if kwargs.get("do_sample") or limit < 1:
        return None
    other = {name: value for name, value in kwargs.items() if name not in HARMLESS}
    if any(name not in NEUTRAL or value not in (NEUTRAL[name], None) for name, value in other.items()):
        return None
    return GreedyUntil(limit, tuple(text for text in until if text))


def is_plain(model: Any) -> bool:
    """Return whether the settings that came with a model leave greedy search what it is."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "generate" in vars(model) or type(inner).generate is not GenerationMixin.generate:
        return False
    config = getattr(model, "generation_config", None)
    if config is None:
        return True
    given = {name: value for name, value in config.to_dict().items() if value is not None and name not in INERT}
    return all(value is False or (name in NEUTRAL and value == NEUTRAL[name]) for name, value in given.items())


def end_tokens(model: Any) -> frozenset[int]:
    """Return the ids at which the model's own generation ends."""
    end = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset() if end is None else frozenset([end] if isinstance(end, int) else end)


def stopper(lm: HFLM, settings: GreedyUntil) -> Callable[[list[int]], bool]:
    """Return what says whether generated ids end: at an end token, or with a stop string in the last few of them."""
    ends = end_tokens(lm.model)
    # Two tokens more than the string's own: the model may spell it in other tokens, as lm-eval allows, too.
    back = max((len(lm.tokenizer.encode(text, add_special_tokens=False)) for text in settings.until), default=0) + 2

    def is_finished(token_ids: list[int]) -> bool:
        if token_ids[-1] in ends:
            return True
        tail = lm.tokenizer.decode(token_ids[-back:])
        return any(text in tail for text in settings.until)

    return is_finished


def prompts_of(
    lm: HFLM, requests: Sequence[Instance], ids: Mapping[str, list[int]]
) -> list[tuple[Prompt, GreedyUntil, list[int]]]:
    """Return the distinct prompts of those requests that are plain greedy search, what each is for, and its requests' numbers.

    Equal requests have equal answers. Prompts are cut on the left to leave room for what they may generate.

    Args:
        ids: of each request's text.
    """
    end = lm.tok_decode(lm.eot_token_id, skip_special_tokens=False)
    asked: dict[tuple[str, GreedyUntil], list[int]] = {}
    for number, request in enumerate(requests):
        settings = greedy_until(request.args[1], lm.max_gen_toks, end)
        if settings is not None and ids[request.args[0]]:
            asked.setdefault((request.args[0], settings), []).append(number)
    return [
        (
            Prompt(ids[text][-(lm.max_length - settings.limit) :], settings.limit, stopper(lm, settings)),
            settings,
            numbers,
        )
        for (text, settings), numbers in asked.items()
    ]


def finished_text(lm: HFLM, token_ids: list[int], settings: GreedyUntil) -> str:
    """Return the text of generated ids without thinking, cut at the first stop string: as ``HFLM`` does it."""
    end = lm.think_end_token
    if isinstance(end, int) and end in token_ids:
        token_ids = token_ids[len(token_ids) - token_ids[::-1].index(end) :]
    text: str = lm.tok_decode(token_ids)
    if isinstance(end, int):
        text = text.lstrip()
    return str(postprocess_generated_text(text, list(settings.until), end if isinstance(end, str) else None))
