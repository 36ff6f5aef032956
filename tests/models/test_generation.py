"""Generated texts are lm-eval's: stops, limits, end tokens, settings of checkpoints, prompts that are cut."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from lm_eval_answers import (
    ODD,
    WORDS,
    asking,
    is_shared,
    llama,
    lm_eval_of,
    some_text,
)

from harness.errors import HarnessError
from harness.models.causal import CausalLM

Tensor = torch.Tensor


@pytest.mark.parametrize("alias", ["max_new_tokens", "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("share", [True, False])
def test_every_name_for_the_most_tokens_cuts_the_prompt(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, alias: str, share: bool
) -> None:
    """Demand: prompts are cut to max_length less the alias; one that leaves no room is an error by name."""
    lm = CausalLM(llama(tokenizer, max_position_embeddings=256), tokenizer, share_prefixes=share)
    assert lm.max_length == 256
    text = some_text(random.Random(0), 150)
    assert len(tokenizer.encode(text)) > 256
    lengths: list[int] = []
    if share:
        before = lm._sharing.generate

        def note(prompts: Any, on_done: Any) -> None:
            lengths.extend(len(prompt.token_ids) for prompt in prompts)
            before(prompts, on_done)

        monkeypatch.setattr(lm._sharing, "generate", note)
    else:
        ordinary = lm.model.generate

        def note_plainly(input_ids: Tensor, **settings: Any) -> Any:
            lengths.append(input_ids.shape[1])
            return ordinary(input_ids=input_ids, **settings)

        monkeypatch.setattr(lm.model, "generate", note_plainly)
    requests = asking("generate_until", (text, {alias: 8}), ("He", {alias: 8}))
    ours = lm.generate_until(requests, True)
    assert max(lengths) == 248
    assert lm.truncated["asked"] == 1
    monkeypatch.undo()
    assert ours == lm_eval_of(lm.model, tokenizer).generate_until(requests, True)
    with pytest.raises(HarnessError, match=r"document 1 in task 'asked'.*asks for 256 new tokens"):
        lm.generate_until(asking("generate_until", ("He", {alias: 8}), ("He", {alias: 256})), True)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"until": ["\n\n"], "max_gen_toks": 1}, "a limit of one"),
        ({"until": ["\n\n", ".", "ing"], "max_gen_toks": 20}, "several stops"),
        ({"until": "e", "max_gen_toks": 20}, "one stop as text"),
        ({"until": [], "max_gen_toks": 12}, "no stops"),
        ({"until": ["é", "🙂", "\ufffd"], "max_gen_toks": 20}, "stops that are not ASCII"),
        ({"until": ["e t", "s s", "o o"], "max_gen_toks": 30}, "stops across tokens"),
        ({"max_gen_toks": 9, "do_sample": False, "temperature": 0.0}, "temperature 0"),
        (
            {"max_gen_toks": 9, "do_sample": False, "temperature": 0.7, "top_p": 0.9},
            "sampling settings without sampling",
        ),
        ({"max_new_tokens": 9, "num_beams": 1, "repetition_penalty": 1.0}, "neutral settings"),
    ],
)
@pytest.mark.parametrize("batch_size", ["auto", 2])
def test_generated_texts_are_those_of_lm_eval(
    model: Any, tokenizer: Any, settings: dict[str, Any], what: str, batch_size: Any
) -> None:
    """Demand: equal texts for prompts of all lengths, more of them than rows, sharing a beginning, doubled."""
    generator = random.Random(3)
    shared = some_text(generator, 40)
    prompts = [f"{shared} {some_text(generator, count)}" for count in (1, 2, 2, 5, 9, 3, 4)]
    prompts += ["a", *ODD, shared, shared, some_text(generator, 30), prompts[0]]
    requests = asking("generate_until", *((prompt, settings) for prompt in prompts))
    lm = CausalLM(model, tokenizer, batch_size=batch_size)
    assert lm.generate_until(requests, True) == lm_eval_of(model, tokenizer).generate_until(requests, True), what
    assert is_shared(lm)


def test_a_stop_string_the_model_spells_across_tokens_ends_the_text(lm: CausalLM, tokenizer: Any) -> None:
    """Demand: for stops cut out of what the model really says, at every place and length, the text is lm-eval's."""
    [free] = lm.generate_until(asking("generate_until", ("The clock", {"max_gen_toks": 24})), True)
    stops = [free[start : start + length] for start in range(0, len(free) - 6, 5) for length in (1, 3, 6)]
    assert len(stops) > 10
    requests = asking(
        "generate_until", *(("The clock", {"until": [s], "max_gen_toks": 24}) for s in stops if s.strip())
    )
    ours = lm.generate_until(requests, True)
    assert ours == lm_eval_of(lm.model, tokenizer).generate_until(requests, True)
    assert any(free.startswith(text) and text != free for text in ours)


def test_texts_that_repeat_themselves_are_guessed_right(tokenizer: Any) -> None:
    """Demand: guesses from a text's own past save passes and change no token, also where loops begin and end."""
    model = llama(tokenizer, initializer_range=0.05)
    requests = asking(
        "generate_until", *((prompt, {"max_gen_toks": 120}) for prompt in (*ODD, "tick tock tick tock tick"))
    )
    lm = CausalLM(model, tokenizer)
    assert lm.generate_until(requests, True) == lm_eval_of(model, tokenizer).generate_until(requests, True)
    assert is_shared(lm)


@pytest.mark.parametrize("ends", [[0, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30], 45, None])
def test_the_end_tokens_of_a_checkpoint_end_texts(tokenizer: Any, ends: Any) -> None:
    """Demand: ``eos_token_id`` of the generation settings, one or many or none, ends texts where lm-eval ends them."""
    model = llama(tokenizer)
    model.generation_config.eos_token_id = ends
    requests = asking("generate_until", *((text, {"until": ["\n\n"], "max_gen_toks": 40}) for text in WORDS[:12]))
    lm = CausalLM(model, tokenizer)
    assert lm.generate_until(requests, True) == lm_eval_of(model, tokenizer).generate_until(requests, True)
    assert is_shared(lm)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 1.0, "top_k": 0},
        {"num_beams": 2},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2},
        {"min_length": 30},
        {"bad_words_ids": [[5]]},
    ],
)
def test_more_than_greedy_search_goes_the_way_of_lm_eval(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    """Demand: sampling, beams and penalties are left to transformers, with lm-eval's result, and plain requests are not."""
    settings = {"until": ["\n\n"], "max_gen_toks": 8, **settings}
    requests = asking("generate_until", ("The clock", settings))
    lm = CausalLM(model, tokenizer)
    torch.manual_seed(1)
    ours = lm.generate_until(requests, True)
    torch.manual_seed(1)
    assert ours == lm_eval_of(model, tokenizer).generate_until(requests, True)
    assert lm.work.plain_tokens == lm.work.pushed_tokens > 0
    mixed = [*requests, *asking("generate_until", ("The clock", {"max_gen_toks": 8}))]
    torch.manual_seed(1)
    assert lm.generate_until(mixed, True)[0] == ours[0]
    assert lm.work.plain_tokens < lm.work.pushed_tokens


@pytest.mark.parametrize("setting", [{"repetition_penalty": 1.5}, {"num_beams": 2}, {"suppress_tokens": [5, 6]}])
def test_settings_of_the_checkpoint_that_change_greedy_search_are_honoured(
    tokenizer: Any, setting: dict[str, Any]
) -> None:
    """Demand: a checkpoint's own generation settings count as lm-eval lets them count."""
    model = llama(tokenizer)
    model.generation_config.update(**setting)
    requests = asking("generate_until", ("The clock", {"max_gen_toks": 16}))
    lm = CausalLM(model, tokenizer)
    assert lm.generate_until(requests, True) == lm_eval_of(model, tokenizer).generate_until(requests, True)
    assert lm.work.plain_tokens == lm.work.pushed_tokens > 0


@pytest.mark.parametrize(
    ("settings", "checkpoint"),
    [
        ({"max_gen_toks": 8}, {"max_new_tokens": 3}),
        ({}, {"max_new_tokens": 3, "max_time": 1e-4}),
        ({"max_length": 12}, {"max_length": 9}),
        ({"stop": ["e"], "max_new_tokens": 12}, {"stop_strings": ["a"]}),
        ({"max_gen_toks": 12}, {"stop_strings": ["a", "i"]}),
        ({"until": ["", "e"], "max_gen_toks": 12}, {}),
        ({"eos_token_id": [*range(40, 80), *range(300, 330)], "max_gen_toks": 12}, {"eos_token_id": 45}),
        ({"repetition_penalty": 1.0, "num_beams": 1, "max_gen_toks": 12}, {"repetition_penalty": 1.7, "num_beams": 2}),
        ({"do_sample": False, "temperature": 0.9, "top_k": 3, "max_gen_toks": 12}, {"do_sample": True, "top_p": 0.5}),
        ({"temperature": 0, "max_gen_toks": 12}, {"do_sample": True, "temperature": 0.6}),
    ],
)
def test_the_same_settings_give_the_same_text_on_both_ways(
    model: Any, tokenizer: Any, settings: dict[str, Any], checkpoint: dict[str, Any]
) -> None:
    """Demand: task before checkpoint, by whatever names, whether requests share, go alone, or go in one batch."""
    model.generation_config.update(**checkpoint)
    prompts = ("The clock", "A bank and a bakery", "He")
    requests = asking("generate_until", *((prompt, settings) for prompt in prompts))
    ways = ({}, {"share_prefixes": False, "batch_size": 1}, {"share_prefixes": False, "batch_size": 3})
    lms = [CausalLM(model, tokenizer, **way) for way in ways]
    shared, alone, together = (lm.generate_until(requests, True) for lm in lms)
    assert shared == alone == together
    assert is_shared(lms[0]) and lms[1].work.plain_tokens == lms[1].work.pushed_tokens > 0
    assert lms[0].generation == lms[1].generation == lms[2].generation
    free = CausalLM(model, tokenizer).generate_until(
        asking("generate_until", *((prompt, {"max_gen_toks": 200, "stop": [], "eos_token_id": None,
        "repetition_penalty": 1.0, "num_beams": 1}) for prompt in prompts)), True)  # fmt: skip
    assert all(whole.startswith(text) for whole, text in zip(free, shared, strict=True)) and free != shared


def test_a_request_that_cannot_be_followed_is_named(lm: CausalLM) -> None:
    """Demand: no room beside the prompt, no prompt, an id that the model has not: one sentence each."""
    for prompt, settings, sentence in [
        ("A bank and a bakery", {"max_length": 4}, "has a prompt of .* tokens, and max_length 4 counts them, too"),
        ("", {"max_gen_toks": 4}, "has a prompt without tokens"),
        ("He", {"suppress_tokens": [400]}, "has suppress_tokens 400, but the model has 400 tokens"),
        ("He", {"max_gen_toks": 4, "max_new_tokens": 4}, "gives both max_gen_toks and max_new_tokens"),
    ]:
        with pytest.raises(HarnessError, match=f"document 0 in task 'asked'.*{sentence}"):
            lm.generate_until(asking("generate_until", (prompt, settings)), True)


def test_what_requests_of_a_task_set_differently_is_kept_with_all_values(lm: CausalLM) -> None:
    """Demand: what is noted of a task's texts is what all of them share, and the values of the rest."""
    settings = [{"max_gen_toks": n, "until": ["z"], **more} for n, more in ((2, {}), (3, {}), (2, {"num_beams": 2}))]
    lm.generate_until(asking("generate_until", *(("He", one) for one in settings)), True)
    known = lm.generation["asked"]
    assert known.pop("by_request") == {"max_gen_toks": [2, 3], "num_beams": [None, 2]}
    assert known == {"until": ["z"], "eos_token_id": [0], "do_sample": False}


def test_prompts_longer_than_the_context_leave_room_for_the_answer_and_are_counted(tokenizer: Any) -> None:
    """Demand: cut on the left to max_length - max_gen_toks, as lm-eval cuts, and counted by task."""
    model = llama(tokenizer, max_position_embeddings=64)
    text = some_text(random.Random(0), 40)
    requests = asking("generate_until", *((text[:n], {"max_gen_toks": 30}) for n in (3, 20, 60, 150)))
    lm = CausalLM(model, tokenizer)
    assert lm.generate_until(requests, True) == lm_eval_of(model, tokenizer).generate_until(requests, True)
    assert lm.truncated["asked"] == sum(len(tokenizer.encode(request.args[0])) > 34 for request in requests) > 0
    assert is_shared(lm)
