"""Texts by vLLM: the settings it follows as we mean them, and each text cut where it ends by our own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.models.guards import named

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness.models.greedy import Stopper, Wish

# Settings of ``harness.generation_settings.applied`` by vLLM's names; those of drawn text matter to it alone.
DRAWING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
OTHERS = {"repetition_penalty": "repetition_penalty", "min_new_tokens": "min_tokens"}
# What vLLM draws by; it raises lower ones, and refuses higher ones.
TEMPERATURES = 0.01, 2.0
# Said in ``Wish`` itself.
OURS = frozenset({"max_gen_toks", "max_length", "min_length", "until", "eos_token_id", "do_sample"})


def settings_for(wish: Wish, values: Mapping[str, Any], request: Instance, *, seed: int) -> dict[str, Any]:
    """Return how vLLM is to write the text of a request, by the names of ``SamplingParams``.

    Stop strings are given where they are awake from the start; a text that thinks goes on to an end token or its limit, and is
    cut afterwards (``ended``).

    Args:
        values: what ``greedy.Wishes.applied`` says of the request.
        seed: of what is drawn for this text.

    Raises:
        HarnessError: a setting that vLLM does not follow, named with the request.
    """
    unknown = sorted(values.keys() - OURS - DRAWING.keys() - OTHERS.keys())
    if unknown:
        raise HarnessError(
            f"{named(request)} asks for {unknown[0]}={values[unknown[0]]}, which vLLM does not do as transformers does; ask "
            "with --model hf"
        )
    told: dict[str, Any] = {OTHERS[name]: value for name, value in values.items() if name in OTHERS}
    least = int(wish.settings.get("min_new_tokens") or 0)
    if least:
        told["min_tokens"] = min(least, wish.limit)
    if values["do_sample"]:
        _check_temperature(values, request)
        told |= {DRAWING[name]: value for name, value in values.items() if name in DRAWING} | {"seed": seed}
    else:
        told["temperature"] = 0.0
    return told | {
        "max_tokens": wish.limit,
        "stop": [] if wish.thinks else list(wish.until),
        "stop_token_ids": sorted(wish.ends),
        "ignore_eos": True,  # what ends a text is among the ids above, the end of text too
        "skip_special_tokens": False,  # a stop string may be one of them
        "detokenize": True,
        "logprobs": 0,  # of the tokens written: where logits are no numbers, nor are these
        "flat_logprobs": True,
    }


def _check_temperature(values: Mapping[str, Any], request: Instance) -> None:
    least, most = TEMPERATURES
    if not least <= values["temperature"] <= most:
        raise HarnessError(
            f"{named(request)} asks for temperature={values['temperature']}, and vLLM takes {least} to {most:g}, or 0 for greedy "
            "text; ask with --model hf"
        )


def ended(token_ids: Sequence[int], stopper: Stopper) -> list[int]:
    """Return generated ids up to the first at which their text ends."""
    for count in range(1, len(token_ids)):
        if stopper(token_ids[:count]):
            return list(token_ids[:count])
    return list(token_ids)
