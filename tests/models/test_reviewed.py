"""What reviews of scoring and generation found or asked about, one demand each."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from lm_eval_answers import asking, assert_scores, build, is_shared, llama, lm_eval_of, sizes, some_text
from test_safety import Declared, Kept, pairs

from harness.errors import HarnessError
from harness.models.causal import CausalLM
from harness.models.tree import attention, generation, memory, tree_attention
from harness.models.tree.trie import Trie, plan

Tensor = torch.Tensor


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """A tiny Llama of this test's own, with large random weights."""
    return llama(tokenizer)


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


def test_gemma_4_with_other_key_heads_in_its_global_layers_generates_as_lm_eval_does(tokenizer: Any) -> None:
    """Demand: layers whose key heads and widths differ have caches and trunks of their own shapes."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Gemma4TextConfig"):
        pytest.skip("transformers has no Gemma 4")
    config = transformers.Gemma4TextConfig(**(sizes(tokenizer) | GEMMA4))
    model = build(transformers.Gemma4ForCausalLM, config)
    assert len({layer.self_attn.k_proj.weight.shape[0] for layer in model.model.layers}) == 2
    settings = {"until": ["\n\n"], "max_gen_toks": 12}
    stem = some_text(random.Random(0), 8)
    texts = ("The clock", "A bank", "He", *(f"{stem} {word}" for word in ("and", "or", "but")))
    requests = asking("generate_until", *((text, settings) for text in texts))
    reference = lm_eval_of(model, tokenizer)
    for batch_size in ("auto", 2):
        lm = CausalLM(model, tokenizer, batch_size=batch_size)
        assert lm.generate_until(requests, True) == reference.generate_until(requests, True)
        assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
        assert is_shared(lm), lm._sharing.refusal


GEMMA4 = {
    "head_dim": 8,
    "global_head_dim": 32,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 400,
}


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


@pytest.mark.parametrize("is_late", [True, False])
def test_a_forward_step_put_on_the_object_takes_effect_and_is_said_once(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str], is_late: bool
) -> None:
    """Demand: ``lm._model_call = wrapped`` is behind every score, before or after the first ones; said once, kept."""
    lm = CausalLM(model, tokenizer)
    plain = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    if is_late:
        assert_scores(lm.loglikelihood(pairs(), True), plain)
    before = lm._model_call
    called: list[int] = []

    def wrapped(inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        called.append(1)
        return before(inps, *args, **kwargs) * 2

    lm._model_call = wrapped
    reference = lm_eval_of(model, tokenizer)
    ordinary = reference._model_call
    reference._model_call = lambda *args, **kwargs: ordinary(*args, **kwargs) * 2
    capsys.readouterr()
    for _ in range(2):
        assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
    lm.token_loglikelihoods(asking("token_loglikelihoods", ("", [5, 6])))
    assert called
    assert capsys.readouterr().err.count("_model_call of its own") == 1
    assert "_model_call" in str(lm.work.reason)


@pytest.mark.parametrize("is_late", [True, False])
def test_a_generate_put_on_the_model_takes_effect(model: Any, tokenizer: Any, is_late: bool) -> None:
    """Demand: ``model.generate = patched`` makes every text, before or after the first ones."""
    lm = CausalLM(model, tokenizer)
    requests = asking("generate_until", *((text, {"max_gen_toks": 4}) for text in ("The clock", "He")))
    if is_late:
        lm.generate_until(requests, True)
    model.generate = lambda input_ids, **_: torch.cat([input_ids, torch.full((len(input_ids), 4), 40)], 1)
    assert lm.generate_until(requests, True) == [tokenizer.decode([40] * 4)] * 2


@pytest.mark.parametrize("softcap", [None, 50.0])
@pytest.mark.parametrize("is_biased", [True, False])
def test_large_half_precision_queries_and_keys_do_not_overflow(softcap: float | None, is_biased: bool) -> None:
    """Demand: products that only scaling brings below 65,504 give the finite answer that float64 gives."""
    sizes_of = torch.tensor([60.0, 30.0, 0.5, -60.0, 55.0])
    key = (sizes_of[:, None] * torch.ones(64)).half()[None, None]
    query = (torch.tensor([60.0, -55.0, 0.01])[:, None] * torch.ones(64)).half()[None, None]
    assert (query.float() @ key.float().transpose(-1, -2)).max() > 2 * 65504
    value = torch.randn((1, 1, 5, 64), generator=torch.Generator().manual_seed(0)).half()
    bias = None
    if is_biased:
        bias = torch.zeros((3, 5), dtype=torch.float16)
        bias[:, 0] = -torch.inf
    how = attention.How(scale=64**-0.5, softcap=softcap)
    result, sums = attention._attend_plainly(query, key, value, how, bias)
    scores = query.double() @ key.double().transpose(-1, -2) * how.scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores if bias is None else scores + bias.double()
    assert torch.isfinite(result).all() and torch.isfinite(sums).all()
    assert torch.allclose(result.double(), torch.softmax(scores, -1) @ value.double(), atol=5e-3)
    assert torch.allclose(sums.double(), torch.logsumexp(scores, -1), rtol=1e-3, atol=1e-2)


def tiny_t5(tokenizer: Any) -> Any:
    """Return a tiny encoder-decoder."""
    from transformers import T5Config, T5ForConditionalGeneration

    return build(
        T5ForConditionalGeneration,
        T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, n_positions=128,
            initializer_factor=2.0, pad_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        ),
    )  # fmt: skip


def test_an_encoder_decoder_scores_as_lm_eval_does(tokenizer: Any) -> None:
    """Demand: a T5 handed over as an object is lm-eval's seq2seq, and the reason why nothing is shared is said."""
    model = tiny_t5(tokenizer)
    lm, reference = CausalLM(model, tokenizer), lm_eval_of(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
    assert "encoder-decoder" in str(lm.work.reason)


def test_an_encoder_decoder_generates_as_lm_eval_does(tokenizer: Any) -> None:
    """Demand: as for its scores, one at a time (lm-eval's limit is the batch's longest prompt plus max_gen_toks)."""
    model = tiny_t5(tokenizer)
    lm, reference = CausalLM(model, tokenizer, batch_size=1), lm_eval_of(model, tokenizer)
    requests = asking("generate_until", *((some_text(random.Random(n), 9), {"max_gen_toks": 8}) for n in range(5)))
    assert lm.generate_until(requests, True) == reference.generate_until(requests, True)
    assert lm.work.forwards >= 0 and lm.work.pushed_tokens >= 0
    assert lm.work.share is None or 0 < lm.work.share <= 1


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


@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"batch_size": 2}, {"share_prefixes": False}])
def test_a_prompt_that_goes_wrong_while_it_is_generated_from_is_the_one_named(
    tokenizer: Any, settings: dict[str, Any]
) -> None:
    """Demand: NaN after a few tokens of one text names its document, with others answered before."""
    model = llama(tokenizer, tie_word_embeddings=False)
    texts = [some_text(random.Random(n), 6) for n in range(12)]
    limits = [2 + n % 4 if n != 7 else 8 for n in range(12)]
    requests = asking("generate_until", *((t, {"max_gen_toks": m}) for t, m in zip(texts, limits, strict=True)))
    prompts = [tokenizer.encode(text) for text in texts]
    made = [
        model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False)[0, len(ids) :].tolist()
        for ids, most in zip(prompts, limits, strict=True)
    ]
    others = {token for n in range(12) for token in (prompts[n] + (made[n] if n != 7 else []))}
    bad = next(token for token in made[7][1:-1] if token not in others and token != made[7][0])
    lm = Declared(model, tokenizer, **settings)
    lm.generate_until(requests[:2], True)  # tried out with numbers
    with torch.no_grad():
        model.model.embed_tokens.weight[bad] = torch.nan
    with pytest.raises(HarnessError, match=r"document 7 in task 'asked'.*NaN"):
        lm.generate_until(requests, True)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"share_prefixes": False}])
@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_a_prompt_that_is_not_a_number_does_not_infect_those_beside_it(
    tokenizer: Any, settings: dict[str, Any], kind: str
) -> None:
    """Demand: of requests that begin alike, the one with the token that gives NaN is named, not a sibling."""
    model = llama(tokenizer, tie_word_embeddings=False)
    stem = some_text(random.Random(0), 12)
    texts = [f"{stem} {end}" for end in ("bank", "clock", "hour", "bakery? It", "sweets", "ledger")]
    requests = asking(kind, *((text, " a" if kind == "loglikelihood" else {"max_gen_toks": 4}) for text in texts))
    lm = CausalLM(model, tokenizer, **settings)
    getattr(lm, kind)(requests[:1], True)  # tried out with numbers
    [bad] = tokenizer.encode("?")
    assert [bad in tokenizer.encode(text) for text in texts] == [n == 3 for n in range(6)]
    with torch.no_grad():
        model.model.embed_tokens.weight[bad] = torch.nan
    with pytest.raises(HarnessError, match=r"document 3 in task 'asked'.*(?i:nan)"):
        getattr(lm, kind)(requests, True)


def test_a_first_text_of_one_token_over_and_over_is_tried_out(model: Any, tokenizer: Any) -> None:
    """Demand: such a request is shared and scored right."""
    [token] = tokenizer.encode("a")
    requests = asking("loglikelihood", ("a" * 30, "a" * 10))
    assert set(tokenizer.encode("a" * 30)) == {token}
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(requests, True), lm_eval_of(model, tokenizer).loglikelihood(requests, True))
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert is_shared(lm) and lm.work.check_tokens > 0


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_wrong_window_is_found_out_whatever_the_first_text_is(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, is_repeated: bool
) -> None:
    """Demand: the try-out beyond a sliding window tells wrong windows, with a first text of one token, too."""
    from transformers import MistralConfig, MistralForCausalLM

    model = build(MistralForCausalLM, MistralConfig(**(sizes(tokenizer) | {"sliding_window": 40, "head_dim": 8})))
    right = tree_attention.TreeAttention.attend

    def wrong(self: Any, query: Tensor, key: Tensor, value: Tensor, how: Any) -> Tensor:
        is_beyond = how.window is not None and self.longest > how.window
        return right(self, query, key, value, replace(how, window=how.window - 8) if is_beyond else how)

    monkeypatch.setattr(tree_attention.TreeAttention, "attend", wrong)
    lm = CausalLM(model, tokenizer)
    text = "a" * 60 if is_repeated else some_text(random.Random(0), 40)
    assert len(tokenizer.encode(text)) > 40
    later = asking("loglikelihood", (some_text(random.Random(1), 60), " clock"))
    lm.loglikelihood(asking("loglikelihood", (text, "a")), True)
    assert_scores(lm.loglikelihood(later, True), lm_eval_of(model, tokenizer).loglikelihood(later, True))
    assert "differ" in str(lm._sharing.refusal)


def new_head(model: Any) -> None:
    """Exchange the output head."""
    head = torch.nn.Linear(32, model.config.vocab_size, bias=True)
    torch.nn.init.normal_(head.weight, std=0.5)
    model.set_output_embeddings(head)


def hook_layer(model: Any) -> None:
    """Let a hook change what a layer gives."""
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 1.5)


def hook_head(model: Any) -> None:
    """Let a hook change what the output head gives."""
    model.lm_head.register_forward_hook(lambda module, inputs, output: output.tanh())


def negate_head(model: Any) -> None:
    """Replace the forward of the output head."""
    before = model.lm_head.forward
    model.lm_head.forward = lambda hidden_states: -before(hidden_states)


@pytest.mark.parametrize("change", [new_head, hook_layer, hook_head, negate_head])
@pytest.mark.parametrize("kind", [CausalLM, Declared])
def test_what_is_changed_between_two_calls_is_noticed(model: Any, tokenizer: Any, change: Any, kind: Any) -> None:
    """Demand: a head exchanged or a hook added after the first scores counts in the next scores and texts."""
    requests = asking("generate_until", *((text, {"max_gen_toks": 8}) for text in ("The clock", "A bank", "He")))
    lm = kind(model, tokenizer)
    first, texts = lm.loglikelihood(pairs(), True), lm.generate_until(requests, True)
    assert is_shared(lm)
    change(model)
    reference = lm_eval_of(model, tokenizer)
    theirs = reference.loglikelihood(pairs(), True)
    assert max(abs(a - b) for (a, _), (b, _) in zip(first, theirs, strict=True)) > 0.01
    assert_scores(lm.loglikelihood(pairs(), True), theirs)
    assert lm.generate_until(requests, True) == reference.generate_until(requests, True)
    assert change is hook_head or reference.generate_until(requests, True) != texts


def test_a_checkpoint_that_says_how_many_new_tokens_is_answered_as_lm_eval_does(model: Any, tokenizer: Any) -> None:
    """Demand: ``generation_config.max_new_tokens`` counts as transformers lets it count."""
    requests = asking("generate_until", *((text, {"max_gen_toks": 12}) for text in ("The clock", "A bank")))
    before = CausalLM(model, tokenizer).generate_until(requests, True)
    model.generation_config.max_new_tokens = 3
    ours = CausalLM(model, tokenizer).generate_until(requests, True)
    assert ours == lm_eval_of(model, tokenizer).generate_until(requests, True)
    assert ours != before
