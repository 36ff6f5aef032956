"""Memory: running out of it costs time and no answers, and what is held while many are asked is bounded."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from lm_eval_answers import (
    PROMPTS,
    TEXTS,
    Declared,
    asking,
    assert_scores,
    is_shared,
    llama,
    lm_eval_of,
    pairs,
    some_text,
)

from harness.models.causal import CausalLM
from harness.models.tree import generation, memory
from harness.models.tree.trie import Trie, plan

Tensor = torch.Tensor


class Small:
    """A hook that lets no more than so many tokens through a model at a time, as a full memory would."""

    def __init__(self, model: Any, most: int) -> None:
        self.most, self.failures, self.passed = most, 0, 0
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Raise when the batch has too many tokens."""
        count = (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).numel()
        if count > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        self.passed += count


class Kept:
    """Counts what lm-eval's cache is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Note an answer."""
        self.told.append(req)


def test_memory_that_runs_out_costs_time_and_no_answers(model: Any, tokenizer: Any) -> None:
    """Demand: with a quarter of the memory the answers are the same, each is given once, and little is done twice."""
    requests = asking("loglikelihood", *((f"{some_text(random.Random(n), 20)} and", " then") for n in range(60)))
    theirs = lm_eval_of(model, tokenizer).loglikelihood(requests, True)
    lm = Declared(model, tokenizer)
    lm.cache_hook = kept = Kept()
    memory = Small(model, lm._budget.tokens // 4)
    assert_scores(lm.loglikelihood(requests, True), theirs)
    assert memory.failures > 0
    assert sorted(kept.told) == sorted(request.args for request in requests)
    assert memory.passed - lm.work.check_tokens <= 1.3 * lm.work.distinct_tokens + 4 * 64
    assert is_shared(lm)


def test_memory_that_runs_out_late_keeps_what_was_answered(model: Any, tokenizer: Any) -> None:
    """Demand: after a failure in the middle only the open requests are asked again."""
    generators = map(random.Random, range(90))
    requests = asking("loglikelihood", *((some_text(g, 4), f" {some_text(g, 8)}") for g in generators))
    theirs = lm_eval_of(model, tokenizer).loglikelihood(requests, True)
    lm = Declared(model, tokenizer, batch_size=8)
    lm.cache_hook = kept = Kept()
    answered: list[int] = []

    def fail_once(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if len(kept.told) > 20 and not answered:
            answered.append(len(kept.told))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(fail_once, with_kwargs=True)
    memory = Small(model, 10**9)
    assert_scores(lm.loglikelihood(requests, True), theirs)
    assert 20 < answered[0] < 80
    assert sorted(kept.told) == sorted(request.args for request in requests)
    assert memory.passed - lm.work.check_tokens <= 1.3 * lm.work.distinct_tokens


def test_memory_that_runs_out_while_generating_changes_no_text(model: Any, tokenizer: Any) -> None:
    """Demand: as for scores; no text comes twice or differs."""
    settings = {"until": ["\n\n"], "max_gen_toks": 8}
    requests = asking("generate_until", *((some_text(random.Random(n), 20), settings) for n in range(30)))
    theirs = lm_eval_of(model, tokenizer).generate_until(requests, True)
    lm = Declared(model, tokenizer)
    lm.cache_hook = kept = Kept()
    memory = Small(model, 200)
    assert lm.generate_until(requests, True) == theirs
    assert memory.failures > 0
    assert sorted(text for text, _ in kept.told) == sorted(request.args[0] for request in requests)
    assert is_shared(lm)


@pytest.mark.parametrize("share", [True, False])
def test_memory_that_never_suffices_ends_in_an_error(model: Any, tokenizer: Any, share: bool) -> None:
    """Demand: no endless loop, on either path, for scores and for texts; the error says that memory ran out."""
    for kind, requests in (("loglikelihood", pairs()), ("generate_until", PROMPTS), ("loglikelihood_rolling", TEXTS)):
        lm = Declared(llama(tokenizer), tokenizer, share_prefixes=share)
        if share:
            getattr(lm, kind)(requests, disable_tqdm=True)  # found fit while there is memory
        memory = Small(lm.model, 0)
        with pytest.raises(torch.OutOfMemoryError):
            getattr(lm, kind)(requests, disable_tqdm=True)
        assert 1 <= memory.failures < 40


def test_memory_that_runs_out_in_the_try_out_does_not_end_the_run(tokenizer: Any) -> None:
    """Demand: the first pass after a failure is smaller; answers are lm-eval's, and no false reason is given."""
    model = llama(tokenizer)
    theirs = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    lm = Declared(model, tokenizer)
    failures: list[int] = []

    def fail_in_the_middle(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if lm.model.config._attn_implementation == "harness_tree" and not failures:
            failures.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.model.layers[1].mlp.register_forward_pre_hook(fail_in_the_middle, with_kwargs=True)
    assert_scores(lm.loglikelihood(pairs(), True), theirs)
    assert failures
    assert lm._sharing.refusal is None


def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Return the lists that will hold, for each step of a generation, its trunks' tokens and the rows that go on."""
    tokens: list[int] = []
    rows: list[int] = []
    names = ("_prefill", "_step")

    def watch(name: str) -> None:
        before = getattr(generation._Generation, name)

        def step(self: Any, *arguments: Any) -> None:
            before(self, *arguments)
            tokens.append(sum(trunk.length for trunk in self.trunks.values()))

        monkeypatch.setattr(generation._Generation, name, step)

    for name in names:
        watch(name)
    made = generation.RowAttention.__init__

    def make(self: Any, under_way: Any, *arguments: Any) -> None:
        rows.append(len(under_way))
        made(self, under_way, *arguments)

    monkeypatch.setattr(generation.RowAttention, "__init__", make)
    return tokens, rows


def questions(documents: int, *, words: int = 60, each: int = 3, most: int = 6) -> list[Any]:
    """Return prompts: a few short questions about each of so many long documents."""
    generator = random.Random(documents)
    texts = [some_text(generator, words) for _ in range(documents)]
    settings = {"until": ["\n\n"], "max_gen_toks": most}
    return asking(
        "generate_until", *((f"{text}\n{some_text(generator, 3)}?", settings) for text in texts for _ in range(each))
    )


def test_trunks_are_dropped_while_many_documents_are_asked_about(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: the trunk tokens held while generating do not grow with the number of documents."""
    peaks = []
    for documents in (16, 48):
        lm = CausalLM(model, tokenizer, batch_size=4)
        requests = questions(documents)
        lm.generate_until(requests[:1], True)  # tried out
        with monkeypatch.context() as patch:
            tokens, _ = watched(patch)
            ours = lm.generate_until(requests, True)
        assert ours == lm_eval_of(model, tokenizer).generate_until(requests, True)
        assert is_shared(lm)
        peaks.append(max(tokens))
    longest = max(len(tokenizer.encode(request.args[0])) for request in requests)
    assert peaks[0] > longest  # there are trunks
    assert peaks[1] <= 1.2 * peaks[0]
    assert peaks[1] <= 3 * 4 * longest


@pytest.mark.parametrize("length", [100, 400, 1500])
def test_trunks_below_a_long_trunk_are_held_a_few_at_a_time(length: int) -> None:
    """Demand: held trunks, each counted with all above it, stay within a few budgets or a few times the longest."""
    budget, generator = 512, random.Random(0)

    def some(count: int) -> list[int]:
        return [generator.randrange(40_000) for _ in range(count)]

    stem = some(length)
    middles = [stem + some(60) for _ in range(200)]
    trie = Trie.build([[*middle, *some(80)] for middle in middles for _ in range(8)], [1] * 1600)
    held: dict[int, int] = {}
    peak, most = 0, 0
    for pack in plan(trie, budget):
        held |= {unit.becomes: int(trie.depth[unit.positions[-1]]) + 1 for unit in pack.units if unit.becomes >= 0}
        peak, most = max(peak, sum(held.values())), max(most, len(held))
        for number in pack.done:
            del held[number]
    assert most > 1
    assert peak <= max(4 * budget, 3 * (length + 60))


def fail_once(model: Any, place: int) -> list[int]:
    """Let memory run out in one forward pass, the one that has the number ``place``; the list then has it."""
    failed: list[int] = []
    count = [0]

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        count[0] += 1
        if count[0] == place + 1:
            failed.append(place)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(hook, with_kwargs=True)
    return failed


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("place", [None, 1])
def test_each_cut_prompt_is_counted_once(tokenizer: Any, share: bool, place: int | None) -> None:
    """Demand: ``truncated`` counts requests, not tries: shared or not, and after memory ran out."""
    model = llama(tokenizer, max_position_embeddings=64)
    text = some_text(random.Random(0), 40)
    texts = asking("generate_until", *((text[n:], {"max_gen_toks": 30}) for n in (0, 0, 5, 9, len(text) - 9)))
    scores = asking("loglikelihood", *((text[n:], " ticked") for n in (0, 5, 9, len(text) - 9)))
    theirs = lm_eval_of(model, tokenizer).generate_until(texts, True)
    lm = Declared(model, tokenizer, share_prefixes=share)
    lm.generate_until(texts[-1:], True)
    lm.loglikelihood(scores[-1:], True)
    assert lm.truncated["asked"] == 0
    failed = [0] if place is None else fail_once(model, place)
    assert lm.generate_until(texts, True) == theirs
    assert failed and lm.truncated["asked"] == 4
    failed = [0] if place is None else fail_once(model, 0)
    lm.loglikelihood(scores, True)
    assert failed and lm.truncated["asked"] == 7


def test_portions_that_were_generated_are_not_generated_again(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: after memory ran out on the plain path only the portion under way is asked again."""
    monkeypatch.setattr(memory, "PORTION", 4)
    requests = asking("generate_until", *((some_text(random.Random(n), 9), {"max_gen_toks": 4}) for n in range(12)))
    theirs = lm_eval_of(model, tokenizer).generate_until(requests, True)
    lm = CausalLM(model, tokenizer, share_prefixes=False)
    lm.cache_hook = kept = Kept()
    before, calls, made = model.generate, [0], [0]

    def generate(input_ids: Tensor, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        made[0] += len(input_ids)
        return before(input_ids=input_ids, **settings)

    model.generate = generate
    assert lm.generate_until(requests, True) == theirs
    assert calls[0] > 3 and made[0] == 12
    assert sorted(text for text, _ in kept.told) == sorted(request.args[0] for request in requests)


def test_scoring_ids_plainly_survives_memory_that_runs_out(model: Any, tokenizer: Any) -> None:
    """Demand: ``token_loglikelihoods`` on the plain path gives the same scores after a failure."""
    requests = asking(
        "token_loglikelihoods", *(("", tokenizer.encode(some_text(random.Random(n), n + 1))) for n in range(20))
    )
    expected = CausalLM(model, tokenizer).token_loglikelihoods(requests)
    lm = CausalLM(model, tokenizer, share_prefixes=False)
    failed = fail_once(model, 0)
    ours = lm.token_loglikelihoods(requests)
    assert failed
    for one, other in zip(ours, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


@pytest.mark.parametrize("is_nested", [False, True])
def test_one_request_at_a_time_is_few_rows_at_a_time(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, is_nested: bool
) -> None:
    """Demand: ``batch_size=1`` bounds the rows under way, whether prompts share a beginning or go on from each other."""
    generator = random.Random(0)
    stem = some_text(generator, 30)
    ends = [some_text(generator, 3) for _ in range(20)]
    texts = [f"{stem} {' '.join(ends[: n + 1])}" if is_nested else f"{stem} {end}" for n, end in enumerate(ends)]
    requests = asking("generate_until", *((text, {"max_gen_toks": 6}) for text in texts))
    lm = CausalLM(model, tokenizer, batch_size=1)
    lm.generate_until(requests[:1], True)
    _, rows = watched(monkeypatch)
    assert lm.generate_until(requests, True) == lm_eval_of(model, tokenizer).generate_until(requests, True)
    assert is_shared(lm)
    assert 1 <= max(rows) <= 4


def test_freed_memory_is_at_hand_within_and_given_back_after() -> None:
    """Demand: pages are not cleared anew for each layer; where a C library cannot be told so, nothing happens."""
    resource = pytest.importorskip("resource")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(8 << 20)  # 32 MB: 8,192 pages
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    with memory.freed_memory_kept():
        first = faults()
        with memory.freed_memory_kept():
            faults()
        fewest = min(faults() for _ in range(8))  # the first may find no place of this size free
        assert not memory._glibc() or fewest < 1000, "an inner use does not end the outer one"
    assert first >= 0 and memory._keeping == [0]
    with pytest.raises(ValueError, match="inside"), memory.freed_memory_kept():
        raise ValueError("inside")
    assert memory._keeping == [0], "it ends with an exception, too"
