"""Text that stops, acts and goes on, by its public name: greedy and drawn, shared and plainly, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from lm_eval_answers import asking, llama

from harness import HarnessError
from harness.models import acting
from harness.models.acting import Candidates, Place, Prompt
from harness.models.causal import CausalLM

LIMIT = 5


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return llama(tokenizer)


def never(_: list[int]) -> bool:
    return False


def texts_of(lm: CausalLM, starts: list[list[int]], **more: Any) -> dict[int, list[int]]:
    """Generate once from each start; the stream of a prompt is its number from the end, whatever stands beside it."""
    found: dict[int, list[int]] = {}
    prompts = [Prompt(start, LIMIT, never, stream=start[-1]) for start in starts]
    acting.generate(lm, prompts, on_done=lambda number, _, ids: found.update({number: ids}), **more)
    return found


STARTS = [[5, 6, 7], [5, 6, 8], [40, 41, 9, 10]]


@pytest.mark.parametrize("choose", [acting.most_likely, acting.sampled(3, temperature=0.8, top_k=50, top_p=0.9)])
def test_a_model_that_shares_and_one_that_does_not_write_the_same(model: Any, tokenizer: Any, choose: Any) -> None:
    shared, plain = (CausalLM(model, tokenizer, share_prefixes=share) for share in (True, False))
    assert texts_of(shared, STARTS, choose=choose) == texts_of(plain, STARTS, choose=choose)
    assert shared.work.plain_tokens == 0 and plain.work.plain_tokens > 0


def test_a_drawn_text_depends_on_its_own_stream_alone(model: Any, tokenizer: Any) -> None:
    lm = CausalLM(model, tokenizer)
    draw = acting.sampled(7)
    together = texts_of(lm, STARTS, choose=draw)
    alone = texts_of(lm, STARTS[1:2], choose=draw)
    assert together[1] == alone[0]
    other = texts_of(lm, STARTS, choose=acting.sampled(8))
    assert other != together


def test_draws_follow_the_probabilities_that_are_left() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    candidates = Candidates(torch.zeros(1, 1), lambda _: (torch.zeros(1), torch.zeros(1)), logits.clone)

    def drawn(count: int, **settings: Any) -> Counter[int]:
        choose = acting.sampled(0, **settings)
        places = [Place(Prompt([1], 1, never, stream=number), ()) for number in range(count)]
        return Counter(choose(candidates, [place])[0] for place in places)

    probabilities = torch.softmax(logits[0], -1)
    counts = drawn(4000)
    assert all(abs(counts[token] / 4000 - float(probabilities[token])) < 0.03 for token in range(4))
    assert drawn(200, top_k=1) == {3: 200}
    assert set(drawn(400, top_k=2)) == {2, 3}
    assert set(drawn(400, top_p=0.5)) == {3}  # 0.64 of the probability
    assert set(drawn(400, top_p=0.7)) == {2, 3}
    assert drawn(400, temperature=0.01) == {3: 400}


def test_a_temperature_of_one_and_no_bounds_draw_from_all_tokens() -> None:
    """Demand: nothing is cut off unasked, as ``top_k=50`` of transformers is."""
    flat = torch.zeros(1, 500)
    candidates = Candidates(torch.zeros(1, 1), lambda _: (torch.zeros(1), torch.zeros(1)), flat.clone)
    choose = acting.sampled(0)
    drawn = {choose(candidates, [Place(Prompt([1], 1, never, stream=number), ())])[0] for number in range(2000)}
    assert len(drawn) > 400


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_numbers_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"temperature .* has to be above 0"):
        acting.sampled(0, **settings)


@pytest.mark.parametrize("share_prefixes", [True, False])
def test_a_text_stops_acts_and_goes_on(model: Any, tokenizer: Any, share_prefixes: bool) -> None:
    lm = CausalLM(model, tokenizer, share_prefixes=share_prefixes)
    pieces: list[list[int]] = []

    def act(_: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        pieces.append(generated)
        if len(pieces) == 2:
            return []
        return [Prompt([*prompt.token_ids, *generated, 77], 3, never, after=prompt)]

    acting.generate(lm, [Prompt(STARTS[0], 2, never, keeps=True)], on_done=act)
    assert list(map(len, pieces)) == [2, 3]
    whole = texts_of(lm, [[*STARTS[0], *pieces[0], 77]])
    assert pieces[1] == whole[0][:3]


def test_nothing_asked_is_nothing_done(model: Any, tokenizer: Any) -> None:
    lm = CausalLM(model, tokenizer)
    acting.generate(lm, [], on_done=lambda *_: None)
    assert lm.work.forwards == 0


def test_an_id_without_an_embedding_is_refused(model: Any, tokenizer: Any) -> None:
    lm = CausalLM(model, tokenizer)
    with pytest.raises(HarnessError, match="the tokenizer gives token 100000"):
        texts_of(lm, [[5, 100000]])


def test_logits_that_are_no_numbers_name_the_request(tokenizer: Any) -> None:
    broken = llama(tokenizer)
    with torch.no_grad():
        broken.model.embed_tokens.weight[77] = torch.nan
    lm = CausalLM(broken, tokenizer)
    requests = asking("generate_until", ("one", {}), ("the broken one", {}))
    prompts = [Prompt([5, 6], 2, never), Prompt([5, 77], 2, never)]
    with pytest.raises(HarnessError, match="the broken one"):
        acting.generate(lm, prompts, requests, on_done=lambda *_: None)


def test_a_model_without_a_head_apart_is_refused_in_a_sentence(tokenizer: Any) -> None:
    headless = llama(tokenizer)
    lm = CausalLM(headless, tokenizer, share_prefixes=False)
    headless.get_output_embeddings = lambda: None
    with pytest.raises(HarnessError, match="text that acts cannot be generated with this model: it has no output head"):
        acting.generate(lm, [Prompt([5], 1, never)], on_done=lambda *_: None)


def test_a_prompt_that_names_no_stream_cannot_be_drawn_from(model: Any, tokenizer: Any) -> None:
    lm = CausalLM(model, tokenizer)
    with pytest.raises(ValueError, match="has to name its stream"):
        acting.generate(lm, [Prompt([5, 6], 2, never)], on_done=lambda *_: None, choose=acting.sampled(0))


def test_a_text_that_goes_on_draws_what_the_whole_text_would(model: Any, tokenizer: Any) -> None:
    """Demand: a continuation does not repeat the draws of what it continues."""
    lm = CausalLM(model, tokenizer)
    whole: list[int] = []
    pieces: list[int] = []
    acting.generate(
        lm,
        [Prompt([5, 6, 7], 6, never, stream="one")],
        on_done=lambda _, __, ids: whole.extend(ids),
        choose=acting.sampled(1),
    )

    def go_on(_: int, prompt: Prompt, ids: list[int]) -> list[Prompt]:
        pieces.extend(ids)
        text = [*prompt.token_ids, *ids]
        return [Prompt(text, 3, never, after=prompt, stream="one")] if len(pieces) == 3 else []

    first = Prompt([5, 6, 7], 3, never, keeps=True, stream="one")
    acting.generate(lm, [first], on_done=go_on, choose=acting.sampled(1))
    assert pieces == whole


def test_ids_are_checked_before_the_model_is_tried_on_them(model: Any, tokenizer: Any) -> None:
    lm = CausalLM(model, tokenizer)
    with pytest.raises(HarnessError, match="the tokenizer gives token 100000"):
        acting.most_tokens(lm, [Prompt([5, 100000], 1, never)])
    assert lm.work.check_tokens == 0 and lm.work.reason is None
