"""Thinking is no part of an answer, and what ends within it is an empty one: on the shared way and on transformers' own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from lm_eval_answers import asking, is_shared, llama

from harness.errors import HarnessError
from harness.models.causal import CausalLM
from harness.requests import CUT_IN_THINKING, Explained

PROMPT = "The clockmaker"
OTHERS = ["A bank", "He", "The clock ticked"]


@dataclass
class Said:
    """What the model says: its ids after ``PROMPT``, and the pieces of text they are."""

    ids: list[int]
    pieces: list[str]

    def behind(self, number: int) -> str:
        return "".join(self.pieces[number:])


@pytest.fixture(scope="module")
def thinker(tokenizer: Any) -> Any:
    """A model whose first 24 tokens are ordinary letters: the others have no say."""
    import torch

    model = llama(tokenizer, tie_word_embeddings=False, initializer_range=0.2)
    with torch.no_grad():
        for token in range(len(tokenizer)):
            text = tokenizer.decode([token])
            if not (text.isascii() and text.strip().isalpha() and len(text.strip()) > 1):
                model.lm_head.weight[token] = 0.0
    return model


@pytest.fixture(scope="module")
def said(thinker: Any, tokenizer: Any) -> Said:
    ids = tokenizer(PROMPT, return_tensors="pt")
    made = thinker.generate(**ids, do_sample=False, max_new_tokens=24)[0, ids["input_ids"].shape[1] :].tolist()
    pieces = [tokenizer.decode([token]) for token in made]
    assert "".join(pieces) == tokenizer.decode(made)
    return Said(made, pieces)


def mark_of(said: Said) -> int:
    """Return the place of a piece that comes once, with a piece before it that does not come after it."""
    text = "".join(said.pieces)
    words = [n for n in range(4, 18) if said.pieces[n].isalpha() and text.count(said.pieces[n]) == 1]
    words = [
        n for n in words if said.pieces[n] not in PROMPT
    ]  # or it is read in another way once it is a special token
    return next(n for n in words if stop_of(said, n))


def stop_of(said: Said, end: int) -> str | None:
    return next((p for p in said.pieces[1:end] if p not in said.behind(end) and p not in said.pieces[end]), None)


def answers(lm: CausalLM, *prompts: str, until: list[str], limit: int = 24) -> list[str]:
    settings = {"until": until, "max_gen_toks": limit}
    return lm.generate_until(asking("generate_until", *((prompt, settings) for prompt in prompts)), True)


@pytest.mark.parametrize("way", ["text", "id", "id as text", "two tokens", "special"])
def test_stops_sleep_until_thinking_has_ended(thinker: Any, tokenizer: Any, said: Said, way: str) -> None:
    """Case stops_inside_thinking: the answer is what stands behind the mark, and may itself be stopped."""
    from copy import deepcopy

    end = mark_of(said)
    stop = stop_of(said, end)
    tokenizer = deepcopy(tokenizer)
    if way == "special":
        tokenizer.add_special_tokens({"additional_special_tokens": [said.pieces[end]]})
        assert tokenizer.encode(said.pieces[end]) == [said.ids[end]]
    mark: Any = {"id": said.ids[end], "id as text": str(said.ids[end])}.get(way, said.pieces[end])
    if way == "two tokens":
        mark = said.pieces[end - 1] + said.pieces[end]
        stop = stop_of(said, end - 1)
    right = said.behind(end + 1).lstrip()
    later = said.pieces[end + 4]
    for settings in ({}, {"share_prefixes": False}, {"share_prefixes": False, "batch_size": 8}):
        lm = CausalLM(thinker, tokenizer, think_end_token=mark, **settings)
        found = answers(lm, PROMPT, *OTHERS, until=[stop])
        assert found[0] == right and CUT_IN_THINKING not in found[0].trace
        assert is_shared(lm) == (not settings)
        # In one batch with a text that goes on, as alone.
        assert (
            answers(lm, PROMPT, until=[later])[0]
            == right.split(later)[0]
            == answers(lm, PROMPT, "He", until=[later])[0]
        )
        assert lm.generation["asked"]["think_end_token"] == lm.thinking.mark


@pytest.mark.parametrize("share", [True, False])
def test_what_ends_within_thinking_is_an_empty_answer(thinker: Any, tokenizer: Any, said: Said, share: bool) -> None:
    """Case stops_inside_thinking: three tokens of thinking are no answer, and are told apart from other empty ones."""
    lm = CausalLM(thinker, tokenizer, think_end_token=said.pieces[mark_of(said)], share_prefixes=share)
    [found] = answers(lm, PROMPT, until=[], limit=3)
    assert (found, found.trace) == ("", [CUT_IN_THINKING])
    assert isinstance(answers(lm, PROMPT, until=[], limit=24)[0], Explained)


@pytest.mark.parametrize("share", [True, False])
def test_a_model_that_ends_without_a_word_of_thinking_has_answered(
    thinker: Any, tokenizer: Any, said: Said, share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that the model ends itself is the answer, unless thinking began in it."""
    end = mark_of(said)
    monkeypatch.setattr(thinker.generation_config, "eos_token_id", said.ids[end])
    text = "".join(said.pieces[: end + 1])
    lm = CausalLM(thinker, tokenizer, think_end_token="</thinking>", share_prefixes=share)
    [found] = answers(lm, PROMPT, until=[])
    assert (found, found.trace) == (text.lstrip(), [])
    assert answers(lm, PROMPT, until=[said.pieces[1]])[0] == text.split(said.pieces[1])[0].lstrip()
    begun = f"/{said.pieces[1].strip()}"  # so that what begins it stands in the text
    lm = CausalLM(thinker, tokenizer, think_end_token=begun, share_prefixes=share)
    assert answers(lm, PROMPT, until=[])[0].trace == [CUT_IN_THINKING]


@pytest.mark.parametrize("share", [True, False])
def test_a_prompt_that_has_ended_the_thinking_is_answered_at_once(thinker: Any, tokenizer: Any, share: bool) -> None:
    """Stops are awake, and the limit of length cuts an answer, no thinking: behind the mark, and with thinking off."""
    plain, thinking = (
        CausalLM(thinker, tokenizer, share_prefixes=share, **more) for more in ({}, {"think_end_token": "</think>"})
    )
    off = CausalLM(thinker, tokenizer, share_prefixes=share, think_end_token="</think>", enable_thinking=False)
    prompts = ["The clock</think>", "The clock</think>\n\n"]
    text = answers(plain, *prompts, until=[], limit=8)
    assert answers(thinking, *prompts, until=[], limit=8) == [one.lstrip() for one in text]
    stop = text[0][2:4]
    stopped = [one.split(stop)[0].lstrip() for one in text]
    assert answers(thinking, *prompts, until=[stop], limit=8) == stopped != text
    assert answers(thinking, "The clock", until=[], limit=8)[0].trace == [CUT_IN_THINKING]
    assert answers(off, "The clock", until=[], limit=8) == [answers(plain, "The clock", until=[], limit=8)[0].lstrip()]


def test_a_chat_template_says_where_the_users_turn_ends(thinker: Any, tokenizer: Any) -> None:
    """Behind a mark of an earlier turn thinking may begin; behind one in the turn begun for the model it may not."""
    from copy import deepcopy

    tokenizer = deepcopy(tokenizer)
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}[assistant]{% endif %}"
    thinking = CausalLM(thinker, tokenizer, think_end_token="</think>").thinking
    assert thinking is not None
    assert thinking.may_begin("[user]What?[assistant]<think>hm</think>So.[user]And?[assistant]")
    assert not thinking.may_begin("[user]What?[assistant]<think></think>\n\nThe answer is")
    assert not thinking.may_begin("[user]What?[assistant]<think>\n\n</think>\n\n")
    assert thinking.may_begin("[user]What?[assistant]<think>\n")
    assert thinking.has_begun("[user]What?[assistant]<think>\n", [5]) and not thinking.has_begun("[user]What?", [5])
    plain = CausalLM(thinker, tokenizer, think_end_token="</think>").thinking
    assert plain is not None and plain.may_begin("Q: 1?\nA: hm</think> 2\n\nQ: 3?\nA:")


@pytest.mark.parametrize(
    ("mark", "sentence"), [(400, "think_end_token is 400, but the tokenizer has 400 tokens"), ("", "is empty")]
)
def test_a_mark_that_cannot_come_is_refused(thinker: Any, tokenizer: Any, mark: Any, sentence: str) -> None:
    """Every answer would be cut in thinking."""
    with pytest.raises(HarnessError, match=sentence):
        CausalLM(thinker, tokenizer, think_end_token=mark)
