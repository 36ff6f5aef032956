"""What the output head reads at chosen positions, logits there, and the cache by text, model and code."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.folders import cache_folder
from harness.methods import adapters, hidden_states
from harness.methods.hidden_states import Frozen, Store, states_of, text_key
from harness.methods.loglikelihoods import token_loglikelihoods
from harness.models.causal import CausalLM
from harness.models.head import reading
from harness.models.identity import tensor_fingerprints
from harness.models.layers import readers

TEXTS = ["Forty clocks ticked there", "the baker and the bank", [5, 9, 120, 33, 7]]


@pytest.fixture
def lm(load: Any) -> Any:
    return load()


def ids_of(lm: Any, text: Any) -> list[int]:
    ids: list[int] = lm.tokenizer.encode(text, add_special_tokens=False) if isinstance(text, str) else text
    return ids


@torch.no_grad()
def truth(lm: Any, text: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hidden states and logits of the model itself."""
    ids = torch.tensor([ids_of(lm, text)])
    return lm.model.model(ids).last_hidden_state[0], lm.model(ids).logits[0]


def test_states_are_what_the_model_gives_its_head_and_what_the_head_makes_of_them(lm: Any) -> None:
    for text, piece in zip(TEXTS, states_of(lm, TEXTS), strict=True):
        hidden, logits = truth(lm, text)
        ids = ids_of(lm, text)
        assert torch.allclose(piece["hidden"], hidden, atol=1e-6)
        assert torch.allclose(piece["log_total"], logits.logsumexp(-1), atol=1e-5)
        assert torch.allclose(piece["best_word"], logits.amax(-1), atol=1e-5)
        following = logits[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
        assert torch.allclose(piece["target_logit"][:-1], following, atol=1e-5)
        assert torch.isnan(piece["target_logit"][-1:]).all()
        assert {tensor.dtype for tensor in piece.values()} == {torch.float32}


def test_chosen_positions_come_in_the_order_asked_for(lm: Any) -> None:
    everything = states_of(lm, TEXTS)
    chosen = states_of(lm, TEXTS, positions=[[3, 0], [], [4]])
    for piece, whole, at in zip(chosen, everything, [[3, 0], [], [4]], strict=True):
        for name in hidden_states.NAMES:
            assert torch.allclose(piece[name], whole[name][at], atol=1e-5, equal_nan=True)


def test_logits_at_chosen_positions_are_the_models_own(lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, ids = Frozen(lm), ids_of(lm, TEXTS[0])
    _, logits = truth(lm, TEXTS[0])
    assert torch.allclose(frozen.logits(ids), logits, atol=1e-5)
    assert torch.allclose(frozen.logits(ids, [2, 0]), logits[[2, 0]], atol=1e-5)
    monkeypatch.setattr(hidden_states, "ENOUGH_ROWS", 0)  # then 16 rows are a part
    hidden = torch.randn(40, frozen.width, generator=torch.Generator().manual_seed(0))
    parts = list(frozen.logits_in_parts(hidden))
    assert [(rows.start, rows.stop) for rows, _ in parts] == [(0, 16), (16, 32), (32, 40)]
    assert torch.allclose(torch.cat([part for _, part in parts]), lm.model.lm_head(hidden), atol=1e-5)


def test_reading_leaves_the_model_as_it_is(lm: Any) -> None:
    before, (_, logits) = tensor_fingerprints(lm.model), truth(lm, TEXTS[0])
    states_of(lm, TEXTS)
    assert tensor_fingerprints(lm.model) == before and torch.equal(truth(lm, TEXTS[0])[1], logits)
    assert not any(module._forward_pre_hooks for module in lm.model.modules())


def test_equal_texts_are_run_once_and_known_ones_not_at_all(lm: Any) -> None:
    first = states_of(lm, [TEXTS[0], TEXTS[0], ids_of(lm, TEXTS[0])])
    assert all(torch.equal(piece["hidden"], first[0]["hidden"]) for piece in first)
    assert len(list((cache_folder() / "hidden_states").rglob("*.safetensors"))) == 1
    forwards = lm.work.forwards
    assert torch.equal(states_of(lm, [TEXTS[0]])[0]["hidden"], first[0]["hidden"])
    assert lm.work.forwards == forwards
    states_of(lm, [TEXTS[0]], cache=False)
    assert lm.work.forwards > forwards


def test_states_are_kept_by_model_adapter_and_code(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load()
    digests = [Frozen(lm).digest(), Frozen(load()).digest()]
    assert digests[0] == digests[1]
    with torch.no_grad():
        lm.model.model.norm.weight[0] += 1
    digests.append(Frozen(lm).digest())
    adapted = adapters.add_adapter(load().model, rank=2, alpha=2.0, target_modules=["q_proj"], seed=0)
    digests.append(Frozen(lm.replace(model=adapted)).digest())
    monkeypatch.setattr(hidden_states, "code_of", lambda parts: "edited")
    digests.append(Frozen(load()).digest())
    assert len(set(digests)) == 4


def test_a_base_and_its_adapter_have_states_of_their_own(load: Any) -> None:
    """One model whose adapters are switched on and off is two models."""
    lm = load()
    base = states_of(lm, TEXTS)
    model = adapters.add_adapter(lm.model, rank=2, alpha=2.0, target_modules=["q_proj", "down_proj"], seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    adapted = lm.replace(model=model)
    on = states_of(adapted, TEXTS)
    with adapters.using(model, None):
        off = states_of(adapted, TEXTS)
    for one, two, three in zip(base, on, off, strict=True):
        assert torch.allclose(one["hidden"], three["hidden"], atol=1e-6)
        assert not torch.allclose(one["hidden"], two["hidden"], atol=1e-4)


def kept_files() -> list[Any]:
    return sorted(cache_folder().rglob("*.safetensors"))


@pytest.mark.parametrize("change", ["pre-hook", "hook", "forward", "subclass", "on the object"])
def test_states_that_the_digest_does_not_know_are_neither_kept_nor_taken(lm: Any, change: str) -> None:
    [plain] = states_of(lm, TEXTS[:1])
    files, part = kept_files(), readers(lm.model)[1]
    with ExitStack() as undo:
        changed = lm
        if change == "pre-hook":
            undo.enter_context(reading(part, lambda hidden: hidden + 1))
        elif change == "hook":
            handle = part.register_forward_hook(lambda module, given, made: made + 1)
            undo.callback(handle.remove)
        elif change == "forward":
            own = part.forward
            part.forward = lambda hidden, *more, **named: own(hidden + 1, *more, **named)
            undo.callback(lambda: delattr(part, "forward"))
        elif change == "subclass":
            changed = Shifted(lm.model, lm.tokenizer, **lm.settings)
        else:
            lm._model_call = lambda token_ids: type(lm)._model_call(lm, token_ids + 1)
            undo.callback(lambda: delattr(lm, "_model_call"))
        for text in TEXTS[:2]:  # of which one is in the cache
            [piece] = states_of(changed, [text])
            [anew] = states_of(changed, [text], cache=False)
            assert torch.equal(piece["hidden"], anew["hidden"])
        assert not torch.allclose(states_of(changed, TEXTS[:1])[0]["hidden"], plain["hidden"], atol=1e-3)
    assert kept_files() == files
    forwards = lm.work.forwards
    assert torch.equal(states_of(lm, TEXTS[:1])[0]["hidden"], plain["hidden"]) and lm.work.forwards == forwards


class Shifted(CausalLM):
    """Reads the next id of each."""

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super()._model_call(inps + 1, *args, **kwargs)


def test_a_store_gives_back_whole_files_alone(lm: Any) -> None:
    [piece] = states_of(lm, TEXTS[:1], cache=False)
    store, key = Store("a" * 64), text_key(["anything", 3])
    count = len(piece["hidden"])
    assert store.load(key, count) is None
    store.save(key, piece)
    found = store.load(key, count)
    assert found is not None and torch.equal(found["hidden"], piece["hidden"])
    assert store.load(key, count + 1) is None and Store("b" * 64).load(key, count) is None
    store.path(key).write_bytes(store.path(key).read_bytes()[:-4])
    assert store.load(key, count) is None


def test_lists_of_numbers_that_mean_something_else_are_kept_apart(lm: Any) -> None:
    states_of(lm, [[5, 9, 120]], positions=[[0, 1]], due=[[9, 2]])
    states_of(lm, [[5, 9, 120]], positions=[[2, 1]], due=[[9, 2]])
    kept = {file.stem for file in kept_files()}
    assert len(kept) == 2
    assert text_key({"ids": [5, 9, 120], "positions": [0, 1], "due": [9, 2]}) in kept
    assert text_key([[5, 9, 120], [0, 1], [9, 2]]) not in kept
    assert text_key({"ids": [5, 9, 120], "targets": [0, 1], "due": [9, 2]}) not in kept


@pytest.mark.parametrize(
    ("texts", "positions", "words"),
    [
        (["a", ""], None, "text 2 has 0 tokens, where 1 to 256 fit the model's context"),
        ([[5] * 257], None, "text 1 has 257 tokens"),
        ([[5, 6]], [[2]], r"a position of \[2\] lies outside a text of 2 tokens; the first is 0"),
        ([[5, 6]], [[-1]], r"a position of \[-1\] lies outside"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(lm: Any, texts: Any, positions: Any, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        states_of(lm, texts, positions=positions)


def test_a_model_whose_head_is_not_apart_is_refused(lm: Any) -> None:
    lm.model.get_output_embeddings = lambda: None
    with pytest.raises(HarnessError, match="no output head apart from the rest; use a causal language model"):
        states_of(lm, TEXTS)


def test_log_probabilities_of_tokens_are_the_models_own_the_first_after_end_of_text(lm: Any) -> None:
    found = token_loglikelihoods(lm, TEXTS)
    for text, scores, piece in zip(TEXTS, found, states_of(lm, TEXTS), strict=True):
        ids = ids_of(lm, text)
        _, logits = truth(lm, [lm.tokenizer.eos_token_id, *ids])
        expected = logits[:-1].log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(scores), expected, atol=1e-5)
        assert len(scores) == len(ids) == len(piece["hidden"])
    for scores, again in zip(found, reversed(token_loglikelihoods(lm, TEXTS[::-1])), strict=True):
        assert again == pytest.approx(scores, abs=1e-5)


def test_log_probabilities_of_texts_longer_than_the_context_come_whole(lm: Any) -> None:
    [scores] = token_loglikelihoods(lm, [[5, 9, 120] * 200])
    assert len(scores) == 600 and all(score < 0 for score in scores)


def test_log_probabilities_that_are_no_numbers_name_the_text(lm: Any) -> None:
    with pytest.raises(HarnessError, match="text 2 has no tokens"):
        token_loglikelihoods(lm, ["a", ""])
    with torch.no_grad():
        lm.model.model.norm.weight[0] = torch.nan
    with pytest.raises(HarnessError, match="texts of a method"):
        token_loglikelihoods(lm, TEXTS)
