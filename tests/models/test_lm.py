"""The contract of an LM: what our own have, what one of another class gets, and who is told of answers."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval.api.model import LM
from lm_eval_answers import asking, llama

from harness.models import lm as contract
from harness.models.causal import CausalLM
from harness.models.lm import LM_EVAL_ANSWERS
from harness.models.tokenizer_only import TokenizerOnly


class Foreign(LM):
    """An LM as anybody writes one against lm-eval."""

    tokenizer_name = "its own"

    def __init__(self) -> None:
        super().__init__()
        self.max_length = 77

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(-1.0, False) for _ in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return [-1.0 for _ in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        return ["" for _ in requests]


class Negated(CausalLM):
    """Makes something else of what the steps below it answer."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(-value, best) for value, best in super().loglikelihood(requests, disable_tqdm)]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return llama(tokenizer)


def test_an_lm_of_another_class_gets_defaults_and_keeps_what_is_its_own() -> None:
    lm = Foreign()
    same = contract.of(lm)
    assert same is lm and type(lm) is Foreign
    assert lm.max_length == 77 and lm.tokenizer_name == "its own"
    assert lm.answers == LM_EVAL_ANSWERS and lm.model is None and lm.rank == 0
    assert lm.work is None and lm.truncated.get("any", 0) == 0
    lm.start_counting()
    lm.join_counts()
    assert not lm.tells("loglikelihood")
    hook = lm.cache_hook
    assert contract.of(lm).cache_hook is hook


def test_our_own_lms_are_left_as_they_are(model: Any, tokenizer: Any) -> None:
    for lm in (CausalLM(model, tokenizer), TokenizerOnly(tokenizer)):
        kind = type(lm)
        assert type(contract.of(lm)) is kind


def test_an_lm_tells_of_answers_that_are_its_last_word(model: Any, tokenizer: Any) -> None:
    plain, changed = CausalLM(model, tokenizer), Negated(model, tokenizer)
    assert all(plain.tells(kind) for kind in CausalLM.answers)
    assert not changed.tells("loglikelihood") and changed.tells("generate_until")
    assert not plain.tells("tool_choice")
    told: list[Any] = []
    plain.on_answer = lambda *answer: told.append(answer)
    requests = asking("loglikelihood", ("The", " clock"), ("", "The"))
    answers = plain.loglikelihood(requests, disable_tqdm=True)
    assert sorted(told) == sorted(
        ("loglikelihood", *pair) for pair in zip([r.args for r in requests], answers, strict=True)
    )


def test_a_step_put_on_the_object_is_no_longer_the_lm_s_own(model: Any, tokenizer: Any) -> None:
    lm = CausalLM(model, tokenizer)
    lm._score = lm._score  # type: ignore[method-assign]
    assert not lm.tells("loglikelihood")


class Wrapper(LM):
    """Hands on to another LM whatever it does not have itself."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["inner"], name)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return list(self.inner.loglikelihood(requests))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return list(self.inner.loglikelihood_rolling(requests))

    def generate_until(self, requests: list[Any]) -> list[str]:
        return list(self.inner.generate_until(requests))


class Demanding(Foreign):
    """Has an own way to set attributes, and demands of its subclasses."""

    def __init_subclass__(cls, *, colour: str, **more: Any) -> None:
        super().__init_subclass__(**more)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in {"max_length", "cache_hook", "tokenizer"}:
            raise TypeError(f"nobody sets {name} here")
        super().__setattr__(name, value)


def test_what_a_wrapper_hands_on_comes_before_a_default(model: Any, tokenizer: Any) -> None:
    inner = CausalLM(model, tokenizer)
    lm = contract.of(Wrapper(inner))
    for name in ("tokenizer", "model", "max_length", "prefix_token_id", "work", "truncated", "answers"):
        assert getattr(lm, name) is getattr(inner, name) or getattr(lm, name) == getattr(inner, name), name
    lm.start_counting()
    told: list[Any] = []
    lm.on_answer = lambda *answer: told.append(answer)
    lm.tell("loglikelihood", ("a", "b"), (-1.0, False))
    assert len(told) == 1 and inner.on_answer is None


def test_a_class_with_demands_of_its_own_gets_the_contract_too() -> None:
    lm = contract.of(Demanding())
    assert lm.answers == LM_EVAL_ANSWERS and lm.max_length == 77 and not lm.tells("loglikelihood")


def test_a_cache_that_was_set_before_is_told_after() -> None:
    class Cache:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def add_partial(self, *answer: Any) -> None:
            self.told.append(answer)

    lm, cache = Foreign(), Cache()
    lm.set_cache_hook(cache)
    contract.of(lm).tell("loglikelihood", ("a", "b"), (-1.0, False))
    assert cache.told == [("loglikelihood", ("a", "b"), (-1.0, False))]
