"""Models whose texts share up to a length: tools change neither what they share nor what they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from answered import ALWAYS, NEVER, answers, questions, request, told
from tiny_models import SIZES, build_tokenizer

from harness.models.causal import CausalLM
from harness.models.tree import fitness
from harness_tool_tokens.answering.lm import ToolTokenLM
from harness_tool_tokens.tools.arguments import Outcome

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def rough_tokenizer() -> Any:
    return build_tokenizer()


def configured(kind: str, tokenizer: Any, limit: int | None, context: int) -> Any:
    """Return a tiny model with large random weights, of a kind whose texts share up to ``limit`` tokens."""
    from transformers import MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM

    sizes = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": context, "initializer_range": 0.3}
    sizes |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "window":
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=64, head_dim=8)).eval()
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope["original_max_position_embeddings"] = limit or context
    more = {"rope_parameters": rope, "original_max_position_embeddings": rope["original_max_position_embeddings"]}
    return Phi3ForCausalLM(Phi3Config(**sizes, **more)).eval()


@pytest.mark.parametrize(("kind", "limit", "context"), [("window", None, 32768), ("longrope", 128, 512)])
def test_models_with_windows_and_longrope_share_their_work_with_tools_loaded_too(
    apply: Callable[..., Any], rough_tokenizer: Any, kind: str, limit: int | None, context: int
) -> None:
    """Demand: a bound that the context lies beyond excludes no prompt: as many tokens are pushed as without tools."""
    bare = CausalLM(configured(kind, rough_tokenizer, limit, context), rough_tokenizer)
    lm = apply(CausalLM(bare.model, rough_tokenizer), bias=NEVER)
    requests = questions(6, max_gen_toks=60)  # beyond the window
    assert answers(lm, requests) == answers(bare, requests)
    assert bare.work.plain_tokens == lm.work.plain_tokens == 0
    assert 0 < lm.work.pushed_tokens <= 1.1 * bare.work.pushed_tokens


@pytest.mark.parametrize("kind", ["window", "longrope"])
@pytest.mark.parametrize("outcome", [Outcome("12 clocks and 345 more"), Outcome(None, "domain")])
def test_texts_that_grow_by_calls_end_within_what_the_model_can_share(
    apply: Callable[..., Any],
    rough_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    outcome: Outcome,
) -> None:
    """Demand: calls and results never carry a text over the bound; answers are those of a model with that context.

    A prompt beyond it is answered as if nothing were shared, and disturbs no other.
    """
    monkeypatch.setattr(fitness, "WINDOWED_TOKENS", 110)
    made = configured(kind, rough_tokenizer, 110, 400)
    texts = [
        "Q: how many clocks are there?\nA:",
        "Children",
        "Q: why?\nA: He",
        "Q: what is time? asked the children\nA:",
    ]
    requests = [request(text, {}, n, max_gen_toks=30, until=["\n\n\n"]) for n, text in enumerate(texts)]
    far = request("The clocks ticked there, and he wound them. " * 8, {}, 9, max_gen_toks=6)
    longest: list[int] = []

    def with_tools(**settings: Any) -> Any:
        lm = apply(
            CausalLM(made, rough_tokenizer, **settings),
            tools=("gsm8k",),
            bias=ALWAYS,
            on_error="text",
            max_argument_tokens=5,
        )
        monkeypatch.setattr(lm.tools.executor, "call", lambda *_: outcome)
        return lm

    within, alone, chooser = with_tools(), with_tools(share_prefixes=False), ToolTokenLM._chooser.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(ToolTokenLM, "_chooser", property(lambda self: watching(chooser(self), longest)))
    found = told(answers(within, requests))
    assert within.work.plain_tokens == 0 and within._sharing.refusal is None
    assert 100 < max(longest) < 110
    assert all(len(calls) > 2 for _, calls in found)
    assert told(answers(with_tools(share_prefixes=False, max_length=110), requests)) == found
    both = told(answers(within, [requests[0], far, *requests[1:]]))
    assert [both[0], *both[2:]] == found
    assert told(answers(alone, [far])) == both[1:2]
    assert within.work.plain_tokens == alone.work.plain_tokens > 0


def watching(chooser: Any, longest: list[int]) -> Any:
    """Return the chooser, the length of every text that it is asked about put on a list."""

    def choose(candidates: Any, places: Any) -> Any:
        longest.extend(len(place.prompt.token_ids) + len(place.generated) for place in places)
        return chooser(candidates, places)

    return choose
