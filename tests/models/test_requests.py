"""Requests as tasks really send them: every answer, id and count is lm-eval's."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval_answers import ODD, WORDS, asking, assert_scores, is_shared, llama, lm_eval_of, some_text

from harness.errors import HarnessError
from harness.models import encoding
from harness.models.causal import CausalLM


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    """A tiny Llama with large random weights."""
    return llama(tokenizer)


def random_pairs(seed: int) -> list[tuple[str, str]]:
    """Return contexts and continuations of all kinds, many of them sharing what they begin with."""
    generator = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    for _ in range(30):
        way = generator.random()
        if pairs and way < 0.2:
            pairs.append(generator.choice(pairs))
        elif pairs and way < 0.5:
            context, continuation = generator.choice(pairs)
            pairs.append(generator.choice([
                (context, continuation + generator.choice([" more", "s", "🙂"])),
                (context + continuation, " and so on"),
                (context[: len(context) // 2], continuation),
                (context, continuation[: max(1, len(continuation) // 2)]),
                (context + generator.choice([" ", "  ", "\n"]), continuation),
            ]))  # fmt: skip
        else:
            context = generator.choice(["", some_text(generator, generator.randint(1, 12)), generator.choice(ODD)])
            pairs.append((context, generator.choice([" ", "", "\n"]) + generator.choice([*WORDS, *ODD])))
    return [(context, continuation) for context, continuation in pairs if context.strip() or not context]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch_size", ["auto", 2])
def test_random_requests_have_the_answers_of_lm_eval(model: Any, tokenizer: Any, seed: int, batch_size: Any) -> None:
    """Demand: duplicates, prefixes, odd characters and spaces at the end change no answer and no order."""
    pairs = asking("loglikelihood", *random_pairs(seed))
    lm, reference = CausalLM(model, tokenizer, batch_size=batch_size), lm_eval_of(model, tokenizer)
    usable = [r for r, (_, ids) in zip(pairs, encoding.encode_pairs(lm, [r.args for r in pairs]), strict=True) if ids]
    assert len(usable) > 20
    assert_scores(lm.loglikelihood(usable, True), reference.loglikelihood(usable, True))
    assert is_shared(lm)


def test_continuations_of_one_and_of_300_tokens_have_the_answers_of_lm_eval(lm: CausalLM, tokenizer: Any) -> None:
    """Demand: lengths far apart are scored together; a choice that begins another is scored for itself."""
    generator = random.Random(0)
    long = " " + some_text(generator, 200)
    while len(tokenizer.encode(long)) > 300:
        long = long[:-1]
    pairs = asking(
        "loglikelihood", ("Ask", long), ("Ask", long[:40]), ("Ask", long[:4]), ("Ask", "?"), ("Ask", "?"), ("B", long)
    )
    assert_scores(lm.loglikelihood(pairs, True), lm_eval_of(lm.model, tokenizer).loglikelihood(pairs, True))
    assert is_shared(lm)


def test_the_same_request_object_twice_is_answered_twice(lm: CausalLM, tokenizer: Any) -> None:
    """Demand: repeats, which lm-eval sends as one object several times, are answered each, and pushed once."""
    [request] = asking("loglikelihood", ("The clock", " ticked there"))
    [prompt] = asking("generate_until", ("The clock", {"until": ["z"], "max_gen_toks": 5}))
    answers = lm.loglikelihood([request] * 3, True)
    assert len(answers) == 3 and len(set(answers)) == 1
    assert lm.work.distinct_tokens == lm.work.pushed_tokens
    assert lm.work.requested_tokens == 3 * lm.work.distinct_tokens
    texts = lm.generate_until([prompt] * 3, True)
    assert texts == lm_eval_of(lm.model, tokenizer).generate_until([prompt] * 3, True)


def test_requests_longer_than_the_context_are_cut_as_lm_eval_cuts_them_and_counted(tokenizer: Any) -> None:
    """Demand: cut on the left at max_length + 1, and ``truncated`` counts exactly those requests, by task."""
    model = llama(tokenizer, max_position_embeddings=24)
    lm, reference = CausalLM(model, tokenizer), lm_eval_of(model, tokenizer)
    text = some_text(random.Random(0), 40)
    ids = [len(a) + len(b) for a, b in encoding.encode_pairs(lm, [(text[:n], " ticked") for n in range(5, 120)])]
    pairs = asking("loglikelihood", *((text[:n], " ticked") for n in range(5, 120)))
    assert_scores(lm.loglikelihood(pairs, True), reference.loglikelihood(pairs, True))
    assert lm.truncated["asked"] == sum(length > 25 for length in ids) > 0
    assert min(ids) < 25 and {24, 25, 26} <= set(ids)
    assert is_shared(lm)


def test_rolling_texts_longer_than_the_context_have_the_scores_of_lm_eval(tokenizer: Any) -> None:
    """Demand: the same windows, at every length about a multiple of the context, and for empty-ish texts."""
    model = llama(tokenizer, max_position_embeddings=24)
    text = some_text(random.Random(1), 40)
    texts = asking("loglikelihood_rolling", *((text[:n],) for n in (1, 2, 30, 31, 32, 33, 60, 90, 150)), (ODD[1],))
    lm = CausalLM(model, tokenizer)
    theirs = lm_eval_of(model, tokenizer).loglikelihood_rolling(texts, True)
    assert lm.loglikelihood_rolling(texts, True) == pytest.approx(theirs, abs=1e-3)
    assert is_shared(lm)


def test_token_scores_sum_to_the_rolling_score(lm: CausalLM, tokenizer: Any) -> None:
    """Demand: ``token_loglikelihoods`` of a text's ids is its rolling log-likelihood, token by token."""
    text = some_text(random.Random(2), 30)
    ids = tokenizer.encode(text)
    [scores] = lm.token_loglikelihoods(asking("token_loglikelihoods", (text, ids)))
    [whole] = lm_eval_of(lm.model, tokenizer).loglikelihood_rolling(asking("loglikelihood_rolling", (text,)), True)
    assert len(scores) == len(ids)
    assert sum(scores) == pytest.approx(whole, abs=1e-3)
    logprobs = torch.log_softmax(lm.model(torch.tensor([[0, *ids]])).logits[0].float(), -1)
    assert scores == pytest.approx([float(row[token]) for row, token in zip(logprobs, ids, strict=False)], abs=1e-3)


@pytest.mark.parametrize("add_bos_token", [True, False, None])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_ids_are_those_of_lm_eval(model: Any, tokenizer: Any, add_bos_token: bool | None, adds_bos: bool) -> None:
    """Demand: pairs, texts and prompts get lm-eval's ids, with a tokenizer that adds BOS by itself and one that does not."""
    if adds_bos:
        tokenizer = _adding_bos(tokenizer)
    lm = CausalLM(model, tokenizer, add_bos_token=add_bos_token)
    reference = lm_eval_of(model, tokenizer, add_bos_token=add_bos_token)
    pairs = [
        *random_pairs(7),
        ("<|end|>The", " clock"),
        ("", "<|end|>The"),
        ("", "The"),
        ("The ", "clock"),
        ("<|end|> ", "a"),
    ]
    expected = []
    for context, continuation in pairs:
        ids = reference.tok_encode(continuation, add_special_tokens=False)
        prefix = reference.prefix_token_id
        alone = (ids[:1], ids[1:]) if ids[0] == prefix else ([prefix], ids)
        expected.append(reference._encode_pair(context, continuation) if context else alone)
    assert encoding.encode_pairs(lm, pairs) == expected
    texts = ["", *ODD, *(text for pair in pairs for text in pair)]
    assert encoding.encode_texts(lm, texts) == {text: reference.tok_encode(text) for text in texts}
    for special in (True, False):
        found = encoding.encode_texts(lm, texts, add_special_tokens=special)
        assert found == {text: reference.tok_encode(text, add_special_tokens=special) for text in texts}
    prompts = [text for text in texts if text]
    assert encoding.encode_prompts(lm, prompts) == {
        text: reference.tok_batch_encode([text])[0][0].tolist() for text in prompts
    }


@pytest.mark.parametrize("add_bos_token", [True, False])
def test_a_tokenizer_that_adds_bos_leaves_the_answers_those_of_lm_eval(
    model: Any, tokenizer: Any, add_bos_token: bool
) -> None:
    """Demand: BOS stands in front where lm-eval puts it, for scores and for texts."""
    tokenizer = _adding_bos(tokenizer)
    settings: dict[str, Any] = {"add_bos_token": add_bos_token, "prefix_token_id": 5}
    lm, reference = CausalLM(model, tokenizer, **settings), lm_eval_of(model, tokenizer, **settings)
    pairs = asking("loglikelihood", ("The", " clock"), ("", "The"), ("<|end|>The", " clock"), ("", "<|end|>The"))
    prompts = asking("generate_until", *((p, {"until": ["z"], "max_gen_toks": 6}) for p in ("The", "<|end|>The")))
    texts = asking("loglikelihood_rolling", ("The clock",), ("<|end|>The",))
    assert_scores(lm.loglikelihood(pairs, True), reference.loglikelihood(pairs, True))
    assert lm.generate_until(prompts, True) == reference.generate_until(prompts, True)
    assert lm.loglikelihood_rolling(texts, True) == pytest.approx(
        reference.loglikelihood_rolling(texts, True), abs=1e-3
    )
    assert is_shared(lm)


def _adding_bos(tokenizer: Any) -> Any:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>")


class _Kept:
    """What lm-eval's cache is told, in place of a cache."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, Any]] = []

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.told.append((attr, req, res))


@pytest.mark.parametrize("share_prefixes", [True, False])
def test_the_cache_is_told_each_answer_once(model: Any, tokenizer: Any, share_prefixes: bool) -> None:
    """Demand: lm-eval's request cache gets every answer, under the request's own arguments, once for each question."""
    lm = CausalLM(model, tokenizer, share_prefixes=share_prefixes)
    lm.cache_hook = kept = _Kept()
    settings = {"until": ["z"], "max_gen_toks": 4}
    pairs = asking("loglikelihood", ("The", " clock"), ("", "The"), ("The", " bank"))
    texts = asking("loglikelihood_rolling", ("The clock",), ("a bank",))
    prompts = asking("generate_until", ("The", settings), ("A bank", settings))
    for kind, requests in (("loglikelihood", pairs), ("loglikelihood_rolling", texts), ("generate_until", prompts)):
        kept.told = []
        answers = getattr(lm, kind)(requests, disable_tqdm=True)
        assert len(kept.told) == len(requests)
        assert {name for name, _, _ in kept.told} == {kind}
        for request, answer in zip(requests, answers, strict=True):
            [told] = [value for _, args, value in kept.told if args == request.args]
            assert told == answer


def test_no_requests_are_no_answers(lm: CausalLM) -> None:
    """Demand: empty lists are answered with empty lists."""
    kinds = (lm.loglikelihood, lm.loglikelihood_rolling, lm.generate_until, lm.token_loglikelihoods, lm.tokenize)
    assert [kind([]) for kind in kinds] == [[]] * 5


def test_an_empty_rolling_text_and_empty_ids_score_nothing(lm: CausalLM, tokenizer: Any) -> None:
    """Demand: a text without tokens scores 0 beside others, as a sum of nothing does."""
    texts = asking("loglikelihood_rolling", ("",), ("The clock",))
    assert lm.loglikelihood_rolling(texts, True)[0] == 0
    assert lm.token_loglikelihoods(asking("token_loglikelihoods", ("", []), ("a", [7])))[0] == []


def test_an_empty_continuation_is_refused_by_name(lm: CausalLM) -> None:
    """Demand: what cannot be scored is an error that names task and document."""
    with pytest.raises(HarnessError, match="document 1 in task 'asked'"):
        lm.loglikelihood(asking("loglikelihood", ("The", " clock"), ("The", "")), True)
    with pytest.raises(HarnessError, match=r"document 0 in task 'asked'.*context holds 512"):
        lm.loglikelihood(asking("loglikelihood", ("The", " clock" * 600)), True)


def test_share_prefixes_off_scores_each_request_alone(model: Any, tokenizer: Any) -> None:
    """Demand: the switch gives lm-eval's way, and the same answers."""
    pairs: list[Instance] = asking("loglikelihood", ("The", " clock"), ("The", " bank"), ("", "The"))
    lm = CausalLM(model, tokenizer, share_prefixes=False)
    assert_scores(lm.loglikelihood(pairs, True), CausalLM(model, tokenizer).loglikelihood(pairs, True))
    assert lm.work.plain_tokens == lm.work.pushed_tokens >= lm.work.requested_tokens


def test_scoring_ids_needs_no_setting_of_torch(model: Any, tokenizer: Any) -> None:
    """Demand: ``_loglikelihood_tokens``, which methods call and override, works outside ``torch.no_grad`` as lm-eval's."""
    windows = [(None, [3, 4, 5], [6, 7]), (None, [3, 4], [9])]
    ours = CausalLM(model, tokenizer)._loglikelihood_tokens(windows, disable_tqdm=True)
    assert_scores(ours, lm_eval_of(model, tokenizer)._loglikelihood_tokens(windows, disable_tqdm=True))
