"""What decides generated text: one name for each setting, and which of several places that set it counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.arguments import convert
from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.requests import is_drawn

# Other names of a setting.
NAMES = {
    "max_new_tokens": "max_gen_toks",
    "max_tokens": "max_gen_toks",
    "max_completion_tokens": "max_gen_toks",
    "stop": "until",
    "stop_strings": "until",
    "stop_sequences": "until",
    "min_tokens": "min_new_tokens",
    "stop_token_ids": "eos_token_id",
}
# Settings of one thing that count otherwise: these count the prompt, too.
SAME = {"max_length": "max_gen_toks", "min_length": "min_new_tokens"}
# What matters to drawn text alone, with the values that count where nobody gives one.
DRAWING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None, "top_h": None, "typical_p": 1.0, "epsilon_cutoff": 0.0,
           "eta_cutoff": 0.0}  # fmt: skip
# Values that change nothing.
NEUTRAL = {
    "num_beams": 1, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "min_new_tokens": 0, "min_length": 0, "length_penalty": 1.0, "early_stopping": False,
    "num_return_sequences": 1, "use_cache": True, "renormalize_logits": False, "max_time": None, "remove_invalid_values": False,
    "token_healing": False, "guidance_scale": 1.0, **{name: value for name, value in DRAWING.items() if name != "top_k"},
    "top_k": 0,
}  # fmt: skip
# What matters to beams alone.
OF_BEAMS = frozenset({"length_penalty", "early_stopping"})
# What a checkpoint may have switched on, and is switched off: the clock, what hides broken logits, what matters to speed alone.
OFF = ("max_time", "remove_invalid_values", "prompt_lookup_num_tokens")
# The least and the most that a number may be, and whether it is whole.
RANGES: dict[str, tuple[type, float, float]] = {
    **dict.fromkeys(("max_gen_toks", "max_length", "num_beams"), (int, 1, 1e9)),
    **dict.fromkeys(("min_new_tokens", "min_length", "top_k", "no_repeat_ngram_size"), (int, 0, 1e9)),
    **dict.fromkeys(("encoder_no_repeat_ngram_size", "forced_bos_token_id", "num_return_sequences"), (int, 0, 1e9)),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), (float, 1e-9, 1e9)),
    **dict.fromkeys(("top_p", "typical_p"), (float, 1e-9, 1)),
    **dict.fromkeys(("min_p", "top_h", "epsilon_cutoff", "eta_cutoff"), (float, 0, 1)),
    "temperature": (float, 0, 1e9),
    "length_penalty": (float, -1e9, 1e9),
}
SWITCHES = frozenset({"do_sample", "renormalize_logits", "use_cache"})
IDS = frozenset({"eos_token_id", "suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"})
LISTS = frozenset({"bad_words_ids", "sequence_bias", "exponential_decay_length_penalty"})
KNOWN = frozenset({*RANGES, *SWITCHES, *IDS, *LISTS, "until", "early_stopping"})
# What transformers knows, or users of other servers expect, and is not taken.
REFUSED = {
    **dict.fromkeys(
        ("penalty_alpha", "dola_layers", "num_beam_groups", "diversity_penalty", "force_words_ids", "constraints"),
        "transformers does it by code from the Hub alone",
    ),
    "seed": "--seed seeds whatever is drawn",
    "n": "each request has one answer; a task's `repeats` asks several times",
    "max_time": "a text that the clock ends is another one on another day",
    "pad_token_id": "padding is the tokenizer's",
    "remove_invalid_values": "logits that are no numbers end a run",
    "prompt_lookup_num_tokens": "it changes how fast text is made, not the text",
    "think_end_token": "it is an option of the model: --model_args think_end_token=...",
    "enable_thinking": "it is an option of the model: --model_args enable_thinking=...",
}
# What a checkpoint says of itself that decides no text here: whether to draw, and how long a context is, is not its to say.
INERT = frozenset({
    "pad_token_id", "bos_token_id", "max_length", "transformers_version", "cache_implementation", "cache_config",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
    "_from_model_config", "do_sample", "num_return_sequences", "decoder_start_token_id", "use_cache", "max_time",
    "remove_invalid_values", "assistant_early_exit", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind", "num_assistant_tokens", "num_assistant_tokens_schedule", "is_assistant", "disable_compile",
    "compile_config", "max_matching_ngram_size", "prompt_lookup_num_tokens",
    "assistant_ensemble_weight", "trust_remote_code", "max_cache_len",
})  # fmt: skip


def thing_of(name: str) -> str:
    """Return what a setting is about: the tokens of an answer have seven names."""
    name = NAMES.get(name, name)
    return SAME.get(name, name)


def named(settings: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return settings under one name each, with values of their types; what is None was not given.

    Args:
        place: where they stand, for errors: ``--gen_kwargs``.

    Raises:
        HarnessError: two names of one thing, a setting that is not taken, a value that makes no sense.
    """
    found: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for name, value in settings.items():
        if value is None and name not in {"eos_token_id", "top_k"}:
            continue
        ours, thing = NAMES.get(name, name), thing_of(name)
        if thing in spelled:
            raise HarnessError(
                f"{place} gives both {spelled[thing]} and {printable(name)}, which are one thing; leave one of them out"
            )
        spelled[thing] = name
        try:
            found[ours] = _value(ours, value)
        except ValueError as error:
            raise HarnessError(f"{place} {printable(name)} {error}") from error
    return found


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of two places, those of ``above`` before those of ``below`` by whatever names; no value is changed.

    A temperature says whether to draw, where ``do_sample`` is not given beside it.
    """
    above = {name: value for name, value in above.items() if value is not None or name in {"eos_token_id", "top_k"}}
    given = {thing_of(name) for name in above}
    hidden = given | ({"do_sample"} if "temperature" in given else set())
    if is_drawn(above) and "temperature" not in given and not below.get("temperature"):
        hidden.add("temperature")  # 0 is another name of greedy
    return {name: value for name, value in below.items() if thing_of(name) not in hidden or name in above} | above


def applied(settings: Mapping[str, Any], checkpoint: Mapping[str, Any], *, most: int, place: str) -> dict[str, Any]:
    """Return what decides a text: ``settings`` before those of the model's own ``generation_config.json``.

    Always there are ``until``, ``eos_token_id``, ``do_sample``, and ``max_gen_toks`` or ``max_length``. What changes nothing is
    left out, of drawn text all that bounds the draw is there.

    Args:
        checkpoint: names and values of ``generation_config.json``.
        most: the tokens to generate where nobody says.
        place: where the settings stand, for errors.

    Raises:
        HarnessError: as ``named``.
    """
    own = {
        NAMES.get(name, name): value for name, value in checkpoint.items() if value is not None and name not in INERT
    }
    _check_own(own)
    wanted = named(settings, place)
    values = over(over({"max_gen_toks": most, "until": [], "eos_token_id": []}, own), wanted)
    drawn = is_drawn(wanted) and is_drawn(values | {"do_sample": True})
    values["do_sample"] = drawn
    if drawn:
        values = {name: value for name, value in DRAWING.items() if value} | values
    values["until"], values["eos_token_id"] = _texts(values["until"]), _ids(values["eos_token_id"])
    return {name: value for name, value in values.items() if _counts(name, value, values)}


def is_greedy(values: Mapping[str, Any]) -> bool:
    """Return whether ``applied`` settings are plain greedy search: nothing but a length, and what ends a text."""
    return not values["do_sample"] and not values.keys() - {
        "max_gen_toks",
        "max_length",
        "until",
        "eos_token_id",
        "do_sample",
    }


def for_transformers(values: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``applied`` settings as ``generate`` takes them, whatever the checkpoint says; length and stops are left out."""
    mine = {"until", "max_gen_toks", "max_length", "min_length"}
    own = {
        NAMES.get(name, name) for name, value in checkpoint.items() if value is not None and name not in INERT
    } - mine
    told = {
        name: NEUTRAL.get(name) for name in own if name not in values and (values["do_sample"] or name not in DRAWING)
    }
    told |= {"stop_strings": None} if checkpoint.get("stop_strings") else {}
    told |= {name: NEUTRAL.get(name) for name in OFF if checkpoint.get(name)}
    told |= {"num_return_sequences": 1} if checkpoint.get("num_return_sequences") else {}
    told |= {name: value for name, value in values.items() if name not in mine}
    return told | {"eos_token_id": values["eos_token_id"] or None}


def _check_own(own: Mapping[str, Any]) -> None:
    for name in sorted(own.keys() & REFUSED.keys()):
        if own[name] not in (0, 1, False, []):
            raise HarnessError(f"the model's generation_config.json has {name}, which is not taken: {REFUSED[name]}")


def _counts(name: str, value: Any, values: Mapping[str, Any]) -> bool:
    """Return whether a setting changes anything beside the others."""
    if name in {"max_gen_toks", "max_length", "until", "eos_token_id", "do_sample"}:
        return True
    if name in DRAWING and name in {"temperature", "top_k", "top_p"}:
        return bool(values["do_sample"])
    if (name in DRAWING and not values["do_sample"]) or (name in OF_BEAMS and values.get("num_beams", 1) == 1):
        return False
    return value is not False and value != NEUTRAL.get(name) and value != []


def _value(name: str, value: Any) -> Any:
    """Return a value of its type. Raises ``ValueError``, to be read after the name."""
    if name in REFUSED:
        raise ValueError(f"is not taken: {REFUSED[name]}")
    if name not in KNOWN:
        raise ValueError(f"is no setting of generated text; {suggestion(name, KNOWN)}")
    if name == "until":
        return _texts(value)
    if name in IDS:
        return _ids(value)
    if name in RANGES:
        return _number(name, 0 if value is None else value)
    if name in SWITCHES:
        value = _converted(value, bool)
    if name == "use_cache" and not value:
        raise ValueError("is not taken: it changes how fast text is made, not the text")
    if name == "early_stopping" and value not in (True, False, "never"):
        raise ValueError(f"is {_shown(value)}, where true, false or never is due")
    if name in LISTS and not isinstance(value, list | dict):
        raise ValueError(f"is {_shown(value)}, where a list is due")
    return value


def _number(name: str, value: Any) -> int | float:
    kind, least, most = RANGES[name]
    number: int | float = _converted(value, kind)
    if not least <= number <= most:
        bounds = f"{least:g} or more" if most > 1 else f"from {least:g} to {most:g}"
        raise ValueError(f"is {number:g}; it has to be {'above 0' if least == 1e-9 and most > 1 else bounds}")
    if name == "num_return_sequences" and number != 1:
        raise ValueError("is not taken: each request has one answer; a task's `repeats` asks several times")
    return number


def _texts(value: Any) -> list[str]:
    """Return the texts that end an answer; an empty one ends nothing."""
    texts = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f'is {_shown(value)}, where text or a list of texts is due: ["7"]')
    return [text for text in texts if text]


def _ids(value: Any) -> list[int]:
    """Return token ids, given as one or as a list of them."""
    ids = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    numbers = [_converted(one, int) for one in ids]
    if any(number < 0 for number in numbers):
        raise ValueError(f"is {_shown(value)}, where ids of tokens are due")
    return numbers


def _converted(value: Any, kind: type) -> Any:
    try:
        return convert(value, kind)
    except ValueError as error:
        raise ValueError(f"is {error}") from error


def _shown(value: Any) -> str:
    return printable(json.dumps(value, ensure_ascii=False, default=str))
