"""Text to token ids for requests: lm-eval's own rules, each distinct text encoded once and all in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix
from transformers import PreTrainedTokenizerBase

# Texts per call of the tokenizer: enough to be fast, few enough to see progress and to bound memory.
TEXTS = 4096


def encode_texts(lm: HFLM, texts: Iterable[str], *, add_special_tokens: bool | None = None) -> dict[str, list[int]]:
    """Return ``lm.tok_encode`` of each text.

    Args:
        add_special_tokens: as for ``tok_encode``.
    """
    distinct = list(dict.fromkeys(texts))
    has_own = type(lm.tokenizer).encode is not PreTrainedTokenizerBase.encode
    if type(lm).tok_encode is not HFLM.tok_encode or has_own:
        return {text: lm.tok_encode(text, add_special_tokens=add_special_tokens) for text in distinct}
    if add_special_tokens is not None:
        return _encode(lm, distinct, {"add_special_tokens": add_special_tokens})
    start = lm.tokenizer.decode(lm.prefix_token_id)
    usual = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    return _by_start(lm, distinct, start, usual)


def encode_prompts(lm: HFLM, texts: Iterable[str]) -> dict[str, list[int]]:
    """Return ``lm.tok_batch_encode`` of each text on its own, nothing cut."""
    distinct = list(dict.fromkeys(texts))
    if type(lm).tok_batch_encode is not HFLM.tok_batch_encode:
        return {text: lm.tok_batch_encode([text])[0][0].tolist() for text in distinct}
    usual = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    return _by_start(lm, distinct, getattr(lm.tokenizer, "bos_token", None), usual)


def encode_pairs(lm: HFLM, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Return the ids of (context, continuation) pairs as ``TemplateLM.loglikelihood`` has them.

    An empty context is the prefix token, unless the continuation starts with that token already.
    """
    if type(lm)._encode_pair is not TemplateLM._encode_pair or lm.backend != "causal":
        return [
            _without_context(lm, c, lm.tok_encode(c, add_special_tokens=False)) if not p else lm._encode_pair(p, c)
            for p, c in pairs
        ]
    moved = [_move_spaces(context, continuation) for context, continuation in pairs]
    texts = [text for context, continuation in moved if context for text in (context, context + continuation)]
    ids = encode_texts(lm, texts)
    alone = encode_texts(lm, [c for (p, c) in pairs if not p], add_special_tokens=False)
    encoded = []
    for (context, continuation), (head, tail) in zip(pairs, moved, strict=True):
        if not context:
            encoded.append(_without_context(lm, continuation, alone[continuation]))
        else:
            start = ids[head] if head else lm.tok_encode(head)
            whole = ids[head + tail] if head else lm.tok_encode(head + tail)
            encoded.append((start, whole[len(start) :]))
    return encoded


def pad_within(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Have a tokenizer fill shorter rows with a token that the model embeds: what stands there counts for nothing."""
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        end = tokenizer.eos_token_id
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0 if end is None or end >= rows else end)


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Hand the spaces at the end of the context to the continuation."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _without_context(lm: HFLM, continuation: str, ids: list[int]) -> tuple[list[int], list[int]]:
    prefix = lm.prefix_token_id
    return ([prefix], ids) if not ids or ids[0] != prefix else (ids[:1], ids[1:])


def _by_start(lm: HFLM, texts: list[str], start: str | None, usual: dict[str, Any]) -> dict[str, list[int]]:
    """Encode texts that begin with ``start`` without special tokens, the others as usual."""
    has_start = {text: has_bos_prefix(text, start) for text in texts}
    bare = _encode(lm, [text for text in texts if has_start[text]], {"add_special_tokens": False})
    return bare | _encode(lm, [text for text in texts if not has_start[text]], usual)


def _encode(lm: HFLM, texts: list[str], kwargs: dict[str, Any]) -> dict[str, list[int]]:
    ids: dict[str, list[int]] = {}
    for start in range(0, len(texts), TEXTS):
        part = texts[start : start + TEXTS]
        ids |= zip(part, lm.tokenizer(part, return_attention_mask=False, **kwargs)["input_ids"], strict=True)
    return ids
