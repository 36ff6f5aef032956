"""Text that stops, acts and goes on: shared with the other texts where the model may, plainly where not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from harness.errors import HarnessError
from harness.models.drawing import Sampled
from harness.models.guards import refuse_generation
from harness.models.head import Barred
from harness.models.plain_generation import generate_plainly
from harness.models.refused import Refused
from harness.models.tree.prompts import (
    Candidates,
    Choose,
    NotANumber,
    OnDone,
    Place,
    Prompt,
    UnderWay,
    common_length,
    most_likely,
)
from harness.progress import say

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness.models.causal import CausalLM

__all__ = [
    "Barred",
    "Candidates",
    "Choose",
    "OnDone",
    "Place",
    "Prompt",
    "Sampled",
    "common_length",
    "generate",
    "most_likely",
    "most_tokens",
    "sampled",
]


@torch.no_grad()
def generate(
    lm: CausalLM,
    prompts: Sequence[Prompt],
    requests: Sequence[Instance] | None = None,
    *,
    on_done: OnDone,
    choose: Choose = most_likely,
    longest: int | None = None,
) -> None:
    """Generate from each prompt, and let what it ended with say what comes next.

    Prompts share the keys of what they have in common where the model may, and with those that go on from them. A model that
    may not share answers one prompt after the other, which is slow, and is said.

    Args:
        lm: its model and its forward pass are used, not its ``generate_until``.
        prompts: token ids, a limit and what ends each; ``Prompt`` says what else.
        requests: those that the prompts are of, for errors; None: a prompt is called by its number.
        on_done: is told the number of a prompt, the prompt (itself or one that came later) and the ids it ended with, in any
            order; returns the prompts to go on with under the same number, or none.
        choose: chooses a token for each place; ``most_likely`` is greedy, ``sampled`` draws.
        longest: tokens of the longest text that there will be; None: that of a prompt and what it may generate.

    Raises:
        HarnessError: a prompt has an id that the model has no embedding for; its logits are NaN or infinite (the prompt's
            request is named); the model's output head cannot be seen.
    """
    if not prompts:
        return
    lm.check_ids([prompt.token_ids for prompt in prompts])
    left, under_way = set(range(len(prompts))), UnderWay(prompts)

    def done(number: int, prompt: Prompt, generated: list[int]) -> Sequence[Prompt]:
        more = list(on_done(number, prompt, generated) or ())
        if under_way.has_ended(number, prompt, more):
            left.discard(number)
        return more

    sharing = lm.sharing()
    with suppress(NotANumber):  # asked alone, the broken request will be named
        sharing.generate(prompts, done, choose=choose, longest=longest)
    rest = sorted(left)
    if not rest:
        return
    why = sharing.refusal or "they are longer than what this model can share, or its logits are no numbers"
    say(f"{len(rest)} answers are written one after the other, without kept keys, which is slow: {why}")
    lm.work.need([prompts[number].token_ids for number in rest])
    try:
        generate_plainly(
            lm.model,
            lm.forward,
            [prompts[number] for number in rest],
            on_done=lambda number, prompt, generated: done(rest[number], prompt, generated),
            choose=choose,
        )
    except NotANumber as error:
        refuse_generation(requests[rest[error.number]] if requests is not None else None)
    except Refused as error:
        raise HarnessError(f"text that acts cannot be generated with this model: {error}") from error


@torch.no_grad()
def most_tokens(lm: CausalLM, prompts: Sequence[Prompt]) -> int | None:
    """Return how long a text may be that shares with others; None where there is no bound or nothing shares.

    Raises:
        HarnessError: a prompt has an id that the model has no embedding for.
    """
    lm.check_ids([prompt.token_ids for prompt in prompts])
    lengths = [len(prompt.token_ids) + prompt.limit for prompt in prompts]
    return lm.sharing().most_tokens([prompt.token_ids for prompt in prompts], lengths)


def sampled(seed: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Sampled:
    """Return what draws each token, from a random stream of the prompt's own for each place in its text.

    So a text depends on neither what is generated beside it nor in which order. Each prompt has to name its ``stream``:
    rollouts of one prompt have one each, a prompt that goes on from another keeps that one's.

    Args:
        temperature: divides the logits, above 0.
        top_k: draw from so many of the likeliest tokens; 0: from all.
        top_p: draw from the fewest tokens that have so much of the probability together, in (0, 1].

    Raises:
        ValueError: a number is out of its range, or, when a token is chosen, a prompt names no stream.
    """
    return Sampled(seed, temperature=temperature, top_k=top_k, top_p=top_p)
