"""One name for each setting of generated text, and which of several places counts: the command line, the task, the model."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import HarnessError
from harness.generation_settings import NAMES, SAME, applied, for_transformers, is_greedy, named, over
from harness.requests import is_drawn

LIMITS = ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"]


def what_counts(task: dict[str, Any], given: dict[str, Any], own: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what decides a text, as lm-eval (which puts ``given`` into the task's settings first) and we bring it about."""
    once, twice = over(task, given), over({**task, **given}, given)
    assert once == twice == over(once, given)
    return applied(once, own or {}, most=256, place="task")


@pytest.mark.parametrize("given", LIMITS)
@pytest.mark.parametrize("task", LIMITS)
def test_a_limit_on_the_command_line_wins_by_whatever_name(task: str, given: str) -> None:
    """Case a_limit_that_is_ignored: max_new_tokens=4 over a task's max_gen_toks: 8 is four tokens."""
    assert what_counts({task: 8}, {given: 4})["max_gen_toks"] == 4
    assert what_counts({task: 8}, {"max_length": 30}) == what_counts({}, {"max_length": 30})
    assert what_counts({"max_length": 30}, {given: 4})["max_gen_toks"] == 4


@pytest.mark.parametrize("given", ["until", "stop", "stop_strings", "stop_sequences"])
@pytest.mark.parametrize("task", ["until", "stop", "stop_strings"])
def test_stops_of_the_command_line_replace_those_of_the_task(task: str, given: str) -> None:
    """Case a_limit_that_is_ignored: ``stop=`` works like ``until=``."""
    assert what_counts({task: ["\n"]}, {given: ["."]})["until"] == ["."]
    assert what_counts({task: ["\n"]}, {given: "."})["until"] == ["."]
    assert what_counts({task: ["\n"]}, {given: []})["until"] == []


@pytest.mark.parametrize(
    ("task", "given", "drawn"),
    [
        ({"do_sample": False, "temperature": 0.7}, {}, False),
        ({"do_sample": False}, {"temperature": 0.7}, True),
        ({"do_sample": False, "temperature": 0.0}, {"do_sample": True}, True),
        ({"do_sample": True, "temperature": 0.7}, {"temperature": 0}, False),
        ({"do_sample": True, "temperature": 0.7}, {"temperature": 0.0}, False),
        ({"do_sample": True, "temperature": 0.7}, {"do_sample": False}, False),
        ({"temperature": 0.7}, {}, True),
        ({"do_sample": True, "temperature": 0}, {}, False),
        ({}, {"do_sample": True, "temperature": 0}, False),
        ({"do_sample": True}, {"top_k": 1}, False),
        ({"temperature": 0.7}, {"top_p": 0.5}, True),
        ({}, {"top_k": 5}, False),
        ({"do_sample": None, "temperature": None}, {}, False),
        ({"do_sample": "false"}, {}, False),
        ({"do_sample": False}, {"temperature": 0.7, "do_sample": False}, False),
    ],
)
def test_who_decides_whether_text_is_drawn(task: dict[str, Any], given: dict[str, Any], drawn: bool) -> None:
    """A task's temperature beside do_sample: false draws nothing; one on the command line does. The model has no say."""
    for own in ({}, {"do_sample": True, "temperature": 0.6}):
        assert what_counts(task, given, own)["do_sample"] == drawn
    assert is_drawn(over(task, given)) == drawn


def test_drawn_text_says_all_that_bounds_the_draw() -> None:
    """Transformers draws from 50 tokens where nobody says: that is what a record holds. The model's own come last."""
    drawn = what_counts({"do_sample": True}, {})
    assert {name: drawn[name] for name in ("temperature", "top_k", "top_p")} == {
        "temperature": 1.0, "top_k": 50, "top_p": 1.0}  # fmt: skip
    own = {"do_sample": False, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1}
    drawn = what_counts({"do_sample": True, "top_p": 0.8}, {"top_k": None}, own)
    assert [drawn[name] for name in ("temperature", "top_k", "top_p", "min_p")] == [0.6, 0, 0.8, 0.1]
    greedy = what_counts({"do_sample": False, "top_p": 0.8}, {}, own)
    assert is_greedy(greedy) and greedy.keys() == {"until", "eos_token_id", "do_sample", "max_gen_toks"}


@pytest.mark.parametrize(
    ("own", "task", "found"),
    [
        ({"max_new_tokens": 3}, {}, {"max_gen_toks": 3}),
        ({"max_new_tokens": 3}, {"max_gen_toks": 9}, {"max_gen_toks": 9}),
        ({"max_new_tokens": 3}, {"max_length": 9}, {"max_length": 9}),
        ({"max_length": 20}, {}, {"max_gen_toks": 256}),
        ({"stop_strings": ["x"]}, {}, {"until": ["x"]}),
        ({"stop_strings": ["x"]}, {"until": ["y"]}, {"until": ["y"]}),
        ({"eos_token_id": [1, 2]}, {}, {"eos_token_id": [1, 2]}),
        ({"eos_token_id": 1}, {"eos_token_id": 7}, {"eos_token_id": [7]}),
        ({"eos_token_id": 1}, {"stop_token_ids": [7, 8]}, {"eos_token_id": [7, 8]}),
        ({"eos_token_id": 1}, {"eos_token_id": None}, {"eos_token_id": []}),
        ({"repetition_penalty": 1.3}, {}, {"repetition_penalty": 1.3}),
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.0}, {"repetition_penalty": None}),
        ({"min_length": 9}, {"min_new_tokens": 2}, {"min_length": None, "min_new_tokens": 2}),
        ({"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 1}, {"num_beams": None, "length_penalty": None}),
        (
            {"max_time": 1.0, "remove_invalid_values": True, "use_cache": False},
            {},
            {"max_time": None, "use_cache": None},
        ),
        ({"suppress_tokens": [], "num_beam_groups": 1, "diversity_penalty": 0.0}, {}, {"suppress_tokens": None}),
        ({"forced_eos_token_id": 4}, {"forced_eos_token_id": 5}, {"forced_eos_token_id": [5]}),
    ],
)
def test_the_models_own_settings_count_last(own: dict[str, Any], task: dict[str, Any], found: dict[str, Any]) -> None:
    """What ``generation_config.json`` says is applied where neither command line nor task says another thing."""
    values = what_counts(task, {}, own)
    assert {name: values.get(name) for name in found} == found
    assert what_counts({}, task, own) == values
    told = for_transformers(values, own)
    assert told["eos_token_id"] == (values["eos_token_id"] or None)
    for name in own.keys() & {"repetition_penalty", "num_beams"}:
        assert told[name] == values.get(name, 1), "transformers would take the checkpoint's"
    assert all(not told.get(name) for name in ("max_time", "stop_strings", "remove_invalid_values"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_gen_toks": 4, "max_new_tokens": 4}, "gives both max_gen_toks and max_new_tokens, which are one thing"),
        ({"until": ["a"], "stop": ["a"]}, "gives both until and stop"),
        ({"max_length": 4, "max_tokens": 4}, "gives both max_length and max_tokens"),
        ({"min_length": 4, "min_new_tokens": 4}, "gives both min_length and min_new_tokens"),
        ({"max_new_token": 4}, "max_new_token is no setting of generated text; did you mean"),
        ({"penalty_alpha": 0.6}, "penalty_alpha is not taken: transformers does it by code from the Hub"),
        ({"seed": 3}, "seed is not taken: --seed"),
        ({"num_return_sequences": 2}, "each request has one answer"),
        ({"use_cache": False}, "use_cache is not taken"),
        ({"max_gen_toks": 0}, "max_gen_toks is 0; it has to be 1 or more"),
        ({"max_gen_toks": 2.5}, "max_gen_toks is '2.5', where a whole number is due"),
        ({"max_gen_toks": True}, "max_gen_toks is 'True', where a whole number is due"),
        ({"temperature": -1}, "temperature is -1; it has to be 0 or more"),
        ({"top_p": 1.5}, "top_p is 1.5; it has to be from"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it has to be above 0"),
        ({"until": 7}, "until is 7, where text or a list of texts is due"),
        ({"stop": ["a", 7]}, "stop is .* where text or a list of texts is due"),
        ({"eos_token_id": "x"}, "eos_token_id is 'x', where a whole number is due"),
        ({"eos_token_id": [-1]}, "eos_token_id is .*where ids of tokens are due"),
        ({"bad_words_ids": 3}, "bad_words_ids is 3, where a list is due"),
        ({"do_sample": "perhaps"}, "do_sample is 'perhaps', where true or false is due"),
        ({"think_end_token": "x"}, "--model_args think_end_token"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    """Nothing that is given is left out in silence."""
    with pytest.raises(HarnessError, match=f"^--gen_kwargs .*{sentence}"):
        named(given, "--gen_kwargs")


def test_names_have_one_meaning() -> None:
    """No name leads to another name, and what is given as text becomes a number."""
    assert not NAMES.keys() & {*NAMES.values()} and not SAME.keys() & {*SAME.values(), *NAMES}
    assert named({"max_tokens": "4", "temperature": "0.5", "until": ["", "a"], "seed": None}, "x") == {
        "max_gen_toks": 4, "temperature": 0.5, "until": ["a"]}  # fmt: skip
    with pytest.raises(HarnessError, match=r"generation_config.json has penalty_alpha"):
        applied({}, {"penalty_alpha": 0.6, "top_k": 4}, most=256, place="x")
