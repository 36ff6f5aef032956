"""Batches that are left out change nothing of the others: parts put together are the whole, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval_answers import llama

from harness.models.causal import CausalLM
from harness.models.due import Due
from harness.models.encoder import Encoder
from harness.models.finding import resolve
from harness.models.kinds import kind_of

WORDS = (
    "clock",
    "bakery",
    "bank",
    "noon",
    "right",
    "Sunday",
    "order",
    "hour",
    "ledger",
    "cuckoo",
    "voice",
    "war",
    "sweets",
)


def text(seed: object, length: int) -> str:
    drawn = random.Random(str(seed))
    return " ".join(drawn.choice(WORDS) for _ in range(length))


def asked(*arguments: Any) -> list[Any]:
    return [SimpleNamespace(args=args, doc_id=n, idx=0, task_name="t", doc={}) for n, args in enumerate(arguments)]


SHOTS = text("shots", 40)
CASES: dict[str, tuple[str, list[Any]]] = {
    "choices": ("loglikelihood", asked(*((text(n, 12), f" {word}") for n in range(80) for word in WORDS[:4]))),
    "a trunk of all": ("loglikelihood", asked(*((f"{SHOTS} {text(n, 9)}", f" {text(n, 3)}") for n in range(90)))),
    "scored trunks": ("loglikelihood_rolling", asked(*((f"{text(n % 3, 30)} {text(n, 12)}",) for n in range(90)))),
    "several windows": ("loglikelihood_rolling", asked(*((text(n, 20 + 5 * (n % 40)),) for n in range(40)))),
    "given ids": (
        "token_loglikelihoods",
        asked(
            *(
                (text(n, 5), [random.Random(f"{n // 4} {i}").randrange(400) for i in range(30 + n % 4)])
                for n in range(90)
            )
        ),
    ),
}


def in_parts(
    lm: Any, kind: str, requests: list[Any], parts: int, *, without: frozenset[int] = frozenset()
) -> list[Any]:
    """Return what ``parts`` parts answer together, none of it twice."""
    answers: list[Any] = [None] * len(requests)
    for part in range(1, parts + 1):
        wanted = frozenset(range(len(requests))) - without
        lm.due = Due(wanted, part=part, parts=parts, first=1, owned=range(part - 1, len(requests), parts))
        for number, answer in enumerate(getattr(lm, kind)(requests)):
            if answer is not None and number in wanted:
                assert answers[number] is None
                answers[number] = answer
        lm.due = None
    return answers


@pytest.fixture(params=["shared", "plainly"])
def lm(request: pytest.FixtureRequest, tokenizer: Any) -> CausalLM:
    return CausalLM(llama(tokenizer), tokenizer, share_prefixes=request.param == "shared")


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_task_are_the_whole_to_the_last_bit(case: str, parts: int, lm: CausalLM) -> None:
    kind, requests = CASES[case]
    assert lm.leaves_out(kind)
    whole = getattr(lm, kind)(requests)
    asked_for = lm.work.requested_tokens, lm.work.distinct_tokens, lm.work.distinct_pairs
    lm.start_counting()
    assert in_parts(lm, kind, requests, parts) == whole
    if not lm.work.reason:
        assert (lm.work.requested_tokens, lm.work.distinct_tokens, lm.work.distinct_pairs) == asked_for


@pytest.mark.parametrize("case", CASES)
def test_what_is_answered_already_is_left_out_where_a_batch_holds_nothing_else(case: str, lm: CausalLM) -> None:
    kind, requests = CASES[case]
    whole = getattr(lm, kind)(requests)
    pushed = lm.work.pushed_tokens
    lm.start_counting()
    there = frozenset(range(0, len(requests), 3)) | frozenset(range(len(requests) // 2))
    answers = in_parts(lm, kind, requests, 1, without=there)
    assert [answers[n] for n in range(len(requests)) if n not in there] == [
        whole[n] for n in range(len(requests)) if n not in there
    ]
    assert lm.work.pushed_tokens <= pushed
    lm.start_counting()
    assert in_parts(lm, kind, requests, 1, without=frozenset(range(len(requests)))) == [None] * len(requests)
    assert lm.work.pushed_tokens == 0


def test_a_request_is_one_parts_however_many_batches_its_windows_lie_in() -> None:
    """Requests 0 and 1 have windows in batches 0 and 1; of 2 parts each would compute both, so that batches are their own."""
    batches, owners = [0, 1, 0, 1], [0, 0, 1, 1]
    choices = [Due({0, 1}, part=part, parts=2, owned=[part - 1]).choose(batches, owners, [10, 10]) for part in (1, 2)]
    assert [(choice.taken, sorted(choice.windows)) for choice in choices] == [(None, [0, 1]), (None, [2, 3])]
    alone = Due({1}).choose(batches, owners, [10, 10])
    assert (alone.taken, alone.computed, sorted(alone.windows)) == (frozenset({0, 1}), frozenset({0, 1}), [0, 1, 2, 3])
    elsewhere = Due({0, 1}, part=2, parts=2).choose([0, 1], [0, 1], [10, 1])
    assert (elsewhere.taken, sorted(elsewhere.windows)) == (frozenset({1}), [1])


def test_vectors_of_parts_are_those_of_the_whole(tiny_encoder: Path) -> None:
    source = resolve({"pretrained": str(tiny_encoder)}, quantization="none", needs_weights=True)
    kind_of("encoder").check(source)
    lm: Any = kind_of("encoder").load(source, None, "auto")
    assert isinstance(lm, Encoder) and lm.leaves_out("embed")
    requests = asked(*((text(n % 600, 3 + n % 9), {}) for n in range(700)))
    whole = lm.embed(requests)
    for parts in (1, 2):
        found = in_parts(lm, "embed", requests, parts)
        assert [one.tobytes() for one in found] == [one.tobytes() for one in whole]
