"""What must never go wrong in silence: methods' own steps, parts that look around, broken numbers, memory that runs out."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest
import torch
from lm_eval_answers import asking, assert_scores, build, is_shared, llama, lm_eval_of, sizes, some_text

from harness.errors import HarnessError
from harness.models.causal import CausalLM

Tensor = torch.Tensor


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """A tiny Llama of this test's own, with large random weights."""
    return llama(tokenizer)


def pairs(count: int = 12) -> list[Any]:
    """Return log-likelihood requests, three to a context, whose contexts begin alike."""
    generator = random.Random(0)
    shared = some_text(generator, 12)
    contexts = [f"{shared} {some_text(generator, 4)}" for _ in range(count // 3)]
    return asking("loglikelihood", *((c, f" {some_text(generator, n)}") for c in contexts for n in (1, 2, 5)))


PROMPTS = asking(
    "generate_until", *((text, {"until": ["\n\n"], "max_gen_toks": 12}) for text in ("The clock", "A bank", "He"))
)
TEXTS = asking("loglikelihood_rolling", ("The clock ticked.",), ("A bakery and a bank",))


class Declared(CausalLM):
    """A method's LM that vouches for the parts it put into the model."""

    is_plain_causal: ClassVar[bool] = True


class Doubled(torch.nn.Module):
    """A method's part that looks at each token alone."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return twice what the part inside returns."""
        out: Tensor = self.inner(hidden_states)
        return 2 * out


class Smeared(Doubled):
    """A part that mixes in the token before: not what stands before it in the text once texts share a pass."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return a mixture with the token before."""
        out: Tensor = self.inner(hidden_states)
        return out + 0.5 * torch.nn.functional.pad(out[:, :-1], (0, 0, 1, 0))


def add_part(model: Any, _: Any = None) -> None:
    model.model.layers[0].mlp = Doubled(model.model.layers[0].mlp)


def add_hook(model: Any) -> None:
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: output * 1.5)


def replace_forward(model: Any) -> None:
    before = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = lambda hidden_states: -before(hidden_states)


class NoTopToken(CausalLM):
    """A decoding method: the token that the model likes best is never taken."""

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        logits = super()._model_call(inps, *args, **kwargs)
        return logits.scatter(-1, logits.argmax(-1, keepdim=True), -30.0)


def test_a_method_that_overrides_the_forward_step_is_asked_for_every_score(model: Any, tokenizer: Any) -> None:
    """Demand: an overridden ``_model_call`` is in effect in every score, and nothing goes past it."""
    lm, reference = NoTopToken(model, tokenizer), lm_eval_of(model, tokenizer)
    assert lm.loglikelihood(pairs(), True) != reference.loglikelihood(pairs(), True)
    ids = tokenizer.encode("The clock")
    every = [(None, ids, [token]) for token in range(len(tokenizer))]
    ours, plain = (each._loglikelihood_tokens(every, disable_tqdm=True) for each in (lm, reference))
    [best] = [token for token, (_, is_best) in enumerate(plain) if is_best]
    assert ours[best][0] < plain[best][0] - 20
    assert not ours[best][1]
    best = int(model(torch.tensor([[0, *ids]])).logits[0, -1].argmax())
    [scores] = lm.token_loglikelihoods(asking("token_loglikelihoods", ("", [*ids, best])))
    assert scores[-1] < -20
    assert lm.work.plain_tokens == lm.work.pushed_tokens > 0
    assert "NoTopToken" in str(lm._sharing.refusal)


class Shouting(CausalLM):
    """A decoding method that overrides the generation step."""

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **kwargs: Any) -> Any:
        out = super()._model_generate(context, max_length, stop, **kwargs)
        return torch.cat([out[:, : context.shape[1]], torch.full_like(out[:, context.shape[1] :], 40)], 1)


def test_a_method_that_overrides_generation_is_asked_for_every_text(model: Any, tokenizer: Any) -> None:
    """Demand: an overridden ``_model_generate`` is in effect in every text."""
    letter = tokenizer.decode([40])
    assert all(text and set(text) == {letter} for text in Shouting(model, tokenizer).generate_until(PROMPTS, True))


@pytest.mark.parametrize("change", [add_part, add_hook, replace_forward])
def test_parts_of_a_method_are_shared_only_once_it_vouches_for_them(model: Any, tokenizer: Any, change: Any) -> None:
    """Demand: foreign modules, hooks and replaced forwards go lm-eval's way; declared plain causal, they share."""
    before = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    change(model)
    theirs = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    assert before != theirs
    careful, vouched = CausalLM(model, tokenizer), Declared(model, tokenizer)
    assert_scores(careful.loglikelihood(pairs(), True), theirs)
    assert careful.work.plain_tokens == careful.work.pushed_tokens > 0
    assert "not declared plain causal" in str(careful._sharing.refusal)
    assert_scores(vouched.loglikelihood(pairs(), True), theirs)
    assert vouched.generate_until(PROMPTS, True) == lm_eval_of(model, tokenizer).generate_until(PROMPTS, True)
    assert is_shared(vouched)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_wrong_promise_is_caught_by_the_try_out(model: Any, tokenizer: Any, layer: int) -> None:
    """Demand: a part that looks at its neighbour in the batch is found out even when declared, before any score."""
    model.model.layers[layer].mlp = Smeared(model.model.layers[layer].mlp)
    lm = Declared(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert "differ" in str(lm._sharing.refusal)
    assert lm.work.plain_tokens == lm.work.pushed_tokens > 0


@pytest.mark.parametrize("mistake", ["sibling", "ancestor"])
def test_a_mistake_in_shared_attention_is_caught_by_the_try_out(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    """Demand: were a token shown one sibling, or not shown one ancestor, the fast path would refuse itself."""
    from harness.models.tree import tree_attention

    pieces = tree_attention._branch_pieces

    def wrong(*arguments: Any) -> Any:
        made = pieces(*arguments)
        for piece in made:
            assert piece.allowed is not None
            piece.allowed = piece.allowed.clone()
            piece.allowed[:, -1, -2 if mistake == "sibling" else 0] = mistake == "sibling"
            if mistake == "sibling":
                piece.allowed[:, 0, -1] = True
        return made

    monkeypatch.setattr(tree_attention, "_branch_pieces", wrong)
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert "differ" in str(lm._sharing.refusal)


def test_lora_shares_and_prompt_tuning_does_not(tokenizer: Any) -> None:
    """Demand: PEFT adapters that change each token alone are fast; virtual tokens go lm-eval's way."""
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    lora = get_peft_model(
        llama(tokenizer), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    )
    lora.eval()
    lm, reference = CausalLM(lora, tokenizer), lm_eval_of(lora, tokenizer)
    theirs = reference.loglikelihood(pairs(), True)
    assert_scores(lm.loglikelihood(pairs(), True), theirs)
    assert lm.generate_until(PROMPTS, True) == reference.generate_until(PROMPTS, True)
    assert is_shared(lm)
    with lora.disable_adapter():
        assert abs(reference.loglikelihood(pairs(), True)[0][0] - theirs[0][0]) > 0.1

    tuned = get_peft_model(llama(tokenizer), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    tuned.eval()
    lm = CausalLM(tuned, tokenizer, batch_size=1)
    assert lm.generate_until(PROMPTS, True) == lm_eval_of(tuned, tokenizer).generate_until(PROMPTS, True)
    assert "virtual tokens" in str(lm._sharing.refusal)


def broken(tokenizer: Any, *, token: str | None) -> Any:
    """Return a model whose logits are not numbers, after one token or after any."""
    model = llama(tokenizer, tie_word_embeddings=False)
    with torch.no_grad():
        if token is None:
            model.model.layers[1].mlp.down_proj.weight[3, 3] = torch.nan
        else:
            model.model.embed_tokens.weight[tokenizer.encode(token)[0]] = torch.nan
    return model


@pytest.mark.parametrize("token", [None, "?"])
def test_scores_that_are_not_numbers_stop_the_run_and_name_the_request(tokenizer: Any, token: str | None) -> None:
    """Demand: NaN is an error with the request's name, on either path; with one bad token the request that has it."""
    model = broken(tokenizer, token=token)
    name = "document 0" if token is None else "document 1"
    lm = CausalLM(model, tokenizer)
    good = [] if token is None else [("The clock", " ticked")]
    ask = [*good, ("Noon?", " ticked"), *good]
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*nan"):
        lm.loglikelihood(asking("loglikelihood", *ask), True)
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*nan"):
        lm.loglikelihood_rolling(asking("loglikelihood_rolling", *((a + b,) for a, b in ask)), True)
    ids = [tokenizer.encode(a + b) for a, b in ask]
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*nan"):
        lm.token_loglikelihoods(asking("token_loglikelihoods", *(("", i) for i in ids)))
    with pytest.raises(HarnessError, match=f"{name} in task 'asked'.*NaN"):
        lm.generate_until(asking("generate_until", *((a, {"max_gen_toks": 4}) for a, _ in ask)), True)


def test_a_token_without_an_embedding_is_explained(tokenizer: Any) -> None:
    """Demand: the tokenizer of another model is named as such, not an index error, whatever is asked."""
    lm = CausalLM(llama(tokenizer, vocab_size=300, eos_token_id=0), tokenizer)
    text = "The clockmaker's shop stood between a bakery and a bank"
    assert max(tokenizer.encode(text)) >= 300
    for kind, args in (
        ("loglikelihood", (text, " now")),
        ("loglikelihood_rolling", (text,)),
        ("generate_until", (text, {"max_gen_toks": 4})),
        ("token_loglikelihoods", ("", tokenizer.encode(text))),
    ):
        with pytest.raises(HarnessError, match="embeddings for 300 tokens"):
            getattr(lm, kind)(asking(kind, args))


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


def test_what_is_counted_fits_together(model: Any, tokenizer: Any) -> None:
    """Demand: requested is the sum of lengths; distinct is at most pushed; share at most 1; and counting starts again."""
    lm = CausalLM(model, tokenizer)
    requests = pairs(30)
    lm.loglikelihood(requests, True)
    asked = [tokenizer.encode("".join(request.args))[:-1] for request in requests]
    assert lm.work.requested_tokens == sum(map(len, asked))
    assert lm.work.distinct_tokens == len({tuple(ids[:stop]) for ids in asked for stop in range(1, len(ids) + 1)})
    assert lm.work.distinct_tokens <= lm.work.pushed_tokens
    assert lm.work.share is not None and 0.9 < lm.work.share <= 1
    assert set(lm.work.describe()) >= {"share", "requested_tokens", "seconds"} and lm.work.sentence()
    before = lm.work.pushed_tokens
    lm.generate_until(PROMPTS, True)
    assert lm.work.share <= 1 and lm.work.pushed_tokens > before
    lm.start_counting()
    assert lm.work.pushed_tokens == 0 and not lm.truncated and lm.work.share is None


@pytest.mark.parametrize("way", ["scores", "texts", "rolling"])
def test_share_is_never_more_than_one_the_plain_way_either(model: Any, tokenizer: Any, way: str) -> None:
    """Demand: what the figure of merit means does not depend on the path."""
    lm = CausalLM(model, tokenizer, share_prefixes=False)
    requests = {"scores": pairs(), "texts": PROMPTS, "rolling": TEXTS}[way]
    kind = {"scores": "loglikelihood", "texts": "generate_until", "rolling": "loglikelihood_rolling"}[way]
    getattr(lm, kind)(requests, disable_tqdm=True)
    assert lm.work.share is not None and 0 < lm.work.share <= 1


@pytest.mark.parametrize("ties", [True, False])
def test_a_head_that_a_method_put_in_is_the_head_that_scores(tokenizer: Any, ties: bool) -> None:
    """Demand: a replaced output head, tied before or not, is in effect, and stays through ``replace``."""
    model = llama(tokenizer, tie_word_embeddings=ties)
    before = CausalLM(model, tokenizer).loglikelihood(pairs(), True)
    head = torch.nn.Linear(32, len(tokenizer), bias=True)
    torch.nn.init.normal_(head.weight, std=0.5)
    model.set_output_embeddings(head)
    lm = CausalLM(model, tokenizer).replace(tokenizer=tokenizer)
    ours = lm.loglikelihood(pairs(), True)
    assert lm.model.get_output_embeddings() is head
    assert abs(ours[0][0] - before[0][0]) > 0.1
    assert_scores(ours, lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert is_shared(lm)


def test_a_head_that_is_more_than_one_matrix_is_called_as_it_is(model: Any, tokenizer: Any) -> None:
    """Demand: a declared head of a method's own is run itself, not its weights; and texts follow it."""
    model.set_output_embeddings(
        torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh(), model.get_output_embeddings())
    )
    model.lm_head[0].requires_grad_(False)
    lm = Declared(model, tokenizer)
    reference = lm_eval_of(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), reference.loglikelihood(pairs(), True))
    assert lm.generate_until(PROMPTS, True) == reference.generate_until(PROMPTS, True)


def negate_head(model: Any) -> None:
    """Replace the forward of the output head itself."""
    before = model.lm_head.forward
    model.lm_head.forward = lambda hidden_states: -before(hidden_states)


def prepare_head(model: Any) -> None:
    """Let a hook change what the output head is given."""
    model.lm_head.register_forward_pre_hook(lambda module, inputs: (1.5 * inputs[0],))


def hook_head(model: Any) -> None:
    """Let a hook change what the output head gives."""
    model.lm_head.register_forward_hook(lambda module, inputs, output: output.tanh())


def clamp_logits(model: Any) -> None:
    """Bound the logits after the head, where some texts reach the bound and the first tokens of texts do not."""
    before = model.forward

    def forward(*arguments: Any, **settings: Any) -> Any:
        out = before(*arguments, **settings)
        out.logits = out.logits.clamp(max=BOUND)
        return out

    model.forward = forward


BOUND = 4.5


@pytest.mark.parametrize("change", [negate_head, prepare_head, hook_head, clamp_logits])
def test_what_a_method_does_about_the_head_is_in_effect_or_refused(model: Any, tokenizer: Any, change: Any) -> None:
    """Demand: declared or not, a changed output head or changed logits are never passed by."""
    plain = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    change(model)
    theirs = lm_eval_of(model, tokenizer).loglikelihood(pairs(), True)
    assert max(abs(a - b) for (a, _), (b, _) in zip(plain, theirs, strict=True)) > 0.01
    assert_scores(CausalLM(model, tokenizer).loglikelihood(pairs(), True), theirs)
    assert_scores(Declared(model, tokenizer).loglikelihood(pairs(), True), theirs)


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": ["lm_head", "o_proj"]}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}],
)
def test_an_adapter_on_the_head_is_in_effect(tokenizer: Any, settings: dict[str, Any]) -> None:
    """Demand: PEFT's ways to train the output head are scored with it, on the fast path."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(llama(tokenizer), LoraConfig(r=4, init_lora_weights=False, **settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert lm.generate_until(PROMPTS, True) == lm_eval_of(model, tokenizer).generate_until(PROMPTS, True)
    assert is_shared(lm)


@pytest.mark.parametrize("cap", [0.5, 30.0, None])
def test_caps_on_logits_are_kept(tokenizer: Any, cap: float | None) -> None:
    """Demand: what a model does to its logits after the head is done to ours, blocks of the vocabulary or not."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    settings = {"head_dim": 8, "query_pre_attn_scalar": 8, "vocab_size": 5000, "final_logit_softcapping": cap}
    model = build(Gemma2ForCausalLM, Gemma2Config(**(sizes(tokenizer) | settings)))
    lm = CausalLM(model, tokenizer)
    assert_scores(lm.loglikelihood(pairs(), True), lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))
    assert is_shared(lm)


def test_scoring_ids_needs_no_setting_of_torch(model: Any, tokenizer: Any) -> None:
    """Demand: ``_loglikelihood_tokens``, which methods call and override, works outside ``torch.no_grad`` as lm-eval's."""
    windows = [(None, [3, 4, 5], [6, 7]), (None, [3, 4], [9])]
    ours = CausalLM(model, tokenizer)._loglikelihood_tokens(windows, disable_tqdm=True)
    assert_scores(ours, lm_eval_of(model, tokenizer)._loglikelihood_tokens(windows, disable_tqdm=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_gives_the_scores_of_lm_eval(model: Any, tokenizer: Any, dtype: str) -> None:
    """Demand: ``mixed_precision_dtype`` is in effect in the head as in the layers, and scores are lm-eval's to rounding."""
    lm = CausalLM(model, tokenizer, mixed_precision_dtype=dtype)
    theirs = lm_eval_of(model, tokenizer, mixed_precision_dtype=dtype).loglikelihood(pairs(), True)
    assert [a for a, _ in lm.loglikelihood(pairs(), True)] == pytest.approx([a for a, _ in theirs], abs=0.3)
    # Rounding of this kind moves logits by several percent; on some machines too much for the try-out.
    assert is_shared(lm) or "differ" in str(lm._sharing.refusal)


def test_a_model_changed_after_the_first_scores_is_not_scored_as_before(model: Any, tokenizer: Any) -> None:
    """Demand: weights changed in place between two evaluations count in the second."""
    lm = CausalLM(model, tokenizer)
    first = lm.loglikelihood(pairs(), True)
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.mul_(-1)
        model.lm_head.weight.mul_(1.1)
    second = lm.loglikelihood(pairs(), True)
    assert first != second
    assert_scores(second, lm_eval_of(model, tokenizer).loglikelihood(pairs(), True))


def test_the_model_is_left_as_it_was(model: Any, tokenizer: Any) -> None:
    """Demand: after scoring, generating and failing, no hook and no routed attention stays behind."""
    before = model.config._attn_implementation
    lm = CausalLM(model, tokenizer)
    lm.loglikelihood(pairs(), True)
    lm.generate_until(PROMPTS, True)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 3] = torch.nan
    with pytest.raises(HarnessError):
        lm.generate_until(PROMPTS, True)
    assert model.config._attn_implementation == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
