"""Models that make vectors of texts: how each does is read from its folder or asked for, then its weights are read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.models import sentence_files
from harness.models.embedding import EMPTY
from harness.models.finding import EMBED_ARGS
from harness.models.loading import LEARNED_POSITIONS, load_model, pick_device
from harness.models.sentence_files import INSTRUCT, Way, pooling_named
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.encoder import Encoder
    from harness.models.source import ModelSource

# Of --model_args that decide how an LM answers, those that an encoder takes.
TAKEN = frozenset(EMBED_ARGS) | {"max_length", "add_bos_token", "share_prefixes"}
# What a tokenizer says that names no limit.
NO_LIMIT = 1 << 24


def check(source: ModelSource) -> PreTrainedTokenizerBase:
    """Do every check that needs no weights, and return the tokenizer, to be looked at.

    Raises:
        HarnessError: an option is none of an encoder's, files contradict it, or a decoder comes without a pooling.
    """
    for name in source.lm_args:
        if name not in TAKEN:
            raise HarnessError(f"--model_args {printable(name)} is not taken by --model encoder; {_taken(name)}")
    empty = source.lm_args.get("empty", "error")
    if empty not in EMPTY:
        raise HarnessError(f"--model_args empty is '{printable(empty)}'; {suggestion(str(empty), EMPTY)}")
    tokenizer = source.check()
    way_of(source)
    return tokenizer


def load(source: ModelSource, *, device: str | None, batch_size: int | str) -> Encoder:
    """Read the weights, without a head, and return the ``Encoder``.

    Raises:
        HarnessError: as ``check``, or the weights cannot be read.
    """
    from harness.models.encoder import Encoder

    way, tokenizer = way_of(source), source.take_tokenizer()
    model = load_model(source, device=pick_device(device), headless=True)
    way = limited_to(way, model, tokenizer)
    given = {
        name: source.lm_args[name] for name in ("empty", "add_bos_token", "share_prefixes") if name in source.lm_args
    }
    return Encoder(model, tokenizer, way=way, batch_size=batch_size, **given)


def way_of(source: ModelSource) -> Way:
    """Return how a model makes a vector of a text: as its files say, and --model_args beyond them.

    Raises:
        HarnessError: files or options do not fit, or a decoder comes without a pooling.
    """
    given, is_causal = source.lm_args, _is_causal(source.config)
    folder = _folder(source)
    place = sentence_files.place_of(folder)
    if place is not None:
        way = replace(sentence_files.read(place, folder), is_causal=is_causal)
    elif is_causal:
        if "pooling" not in given:
            raise HarnessError(
                f"'{printable(source.name)}' is a decoder whose files do not say how a text becomes a vector; choose with "
                "--model_args pooling=eos (or last, mean, weighted_mean)"
            )
        way = Way(is_causal=True, is_laid_out=True, template=INSTRUCT)
    else:
        way = Way()
    if "pooling" in given:
        way = replace(way, pooling=(_pooling(given["pooling"], way),))
    if "{text}" in given.get("template", "") and not way.is_laid_out:
        raise HarnessError("--model_args template holds {text}, which only a decoder without files of its own takes")
    named = {name: given[name] for name in ("normalise", "template", "max_length") if name in given}
    return replace(way, **named)


def _folder(source: ModelSource) -> Path:
    """Return where the model's files lie, those that say how it makes vectors brought from the Hub first."""
    if not source.is_local:
        from huggingface_hub import snapshot_download

        with suppress(Exception):  # no such files, or no way to the Hub: then there are none here
            parts = [sentence_files.MODULES, sentence_files.PROMPTS, "sentence_*_config.json", "[0-9]_*/*"]
            snapshot_download(source.location, revision=source.revision, allow_patterns=parts)
    return source.folder


def _pooling(name: str, way: Way) -> str:
    pooling = pooling_named(name)
    if pooling == "cls" and way.is_causal:
        raise HarnessError(
            "pooling=cls takes a first token that has seen no other in a decoder; take eos, last or mean"
        )
    if pooling == "eos" and not way.is_laid_out:
        raise HarnessError("pooling=eos is for a decoder without files of its own; take pooling=last")
    return pooling


def _is_causal(config: Any) -> bool:
    """Return whether the tokens of a model look back alone."""
    from transformers.models.auto import modeling_auto as auto

    kind, text = config.model_type, config.get_text_config()
    if kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES or getattr(text, "use_bidirectional_attention", False):
        return False
    is_decoder = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and getattr(text, "is_causal", True) is not False
    both = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return is_decoder and (not both or bool(getattr(text, "is_decoder", False)))


def limited_to(way: Way, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Way:
    """Return a way whose texts are no longer than the model and its files allow."""
    return replace(way, max_length=_limit(way, model, tokenizer))


def _limit(way: Way, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the tokens of the longest text: what was asked for or its files say, no more than the model has places for."""
    places = _places(model)
    said = [way.max_length] if way.max_length else [tokenizer.model_max_length, *([places] if places else [])]
    known = [limit for limit in [*said, *([places] if places else [])] if limit is not None and limit < NO_LIMIT]
    return min(known, default=None)


def _places(model: PreTrainedModel) -> int | None:
    """Return how many places a model has: rows for them that it learned, or what its configuration says."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in LEARNED_POSITIONS:
            # Some leave the rows up to that of padding unused.
            unused = module.padding_idx + 1 if module.padding_idx is not None else getattr(module, "offset", 0)
            return module.num_embeddings - unused
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def _taken(name: str) -> str:
    return suggestion(name, sorted(TAKEN))
