"""The frozen pass: what is kept of a position, the cache, and models whose head cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.folders import cache_folder
from harness.methods import hidden_states
from harness.methods.hidden_states import Frozen
from harness.models.finding import resolve
from harness.models.identity import tensor_fingerprints
from harness.models.loading import load_lm
from harness_tool_tokens.rows.states import States, frozen_states
from harness_tool_tokens.rows.texts import FIRST_TOOL, IGNORED, CallPlace, Encoded, Row, encode_row
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox

ROWS = [
    Row("a", "Forty clocks ticked there, noon took 4 minutes", (CallPlace("tick", 37, 38),)),
    Row("b", "None, said he, but together 12 of them", (CallPlace("tock", 28, 30),)),
    Row("c", "He wound them every Sunday", ()),
]


@pytest.fixture
def toolbox() -> Toolbox:
    return Toolbox((Tool("tick", "tick"), Tool("tock", "tock")))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def lm(tiny_model: Path) -> Any:
    return load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=1)


@pytest.fixture
def encoded(lm: Any, toolbox: Toolbox) -> list[Encoded]:
    return [encode_row(lm, row, toolbox) for row in ROWS]


def equal(one: States, other: States, **closeness: float) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in States.__dataclass_fields__]
    if closeness:
        return all(torch.allclose(a, b, **closeness) for a, b in pairs)
    return all(torch.equal(a, b) for a, b in pairs)


def check_against_the_models_own_logits(lm: Any, encoded: list[Encoded], states: States, tolerance: float) -> None:
    place = 0
    for number, row in enumerate(encoded):
        with torch.no_grad():
            logits = lm.model(torch.tensor([row.token_ids])).logits[0].float()
        for position, target in enumerate(row.targets):
            if target == IGNORED:
                continue
            line = logits[position]
            assert (int(states.rows[place]), int(states.positions[place])) == (number, position)
            assert int(states.targets[place]) == target
            expected = [line.logsumexp(0), line[target] if target >= 0 else torch.tensor(0.0), line.max()]
            found = [states.log_total[place], states.target_logit[place], states.best_word[place]]
            assert torch.allclose(torch.stack(found), torch.stack(expected), atol=tolerance)
            place += 1
    assert place == len(states) == len(states.hidden)


def test_states_are_what_the_models_own_logits_say(lm: Any, encoded: list[Encoded]) -> None:
    states = frozen_states(lm, encoded)
    check_against_the_models_own_logits(lm, encoded, states, 1e-5)
    assert torch.allclose(Frozen(lm).head.logits(states.hidden).logsumexp(1), states.log_total, atol=1e-5)
    assert set(states.weights.tolist()) == {1.0}
    assert {states.hidden.dtype, states.log_total.dtype, states.best_word.dtype} == {torch.float32}
    assert not states.hidden.is_inference() and not states.hidden.requires_grad


def test_the_models_own_change_of_its_logits_is_part_of_the_states(
    lm: Any, encoded: list[Encoded], tmp_path: Path
) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(lm.tokenizer), "final_logit_softcapping": 0.5}
    torch.manual_seed(0)
    Gemma2ForCausalLM(Gemma2Config(**sizes, **more)).save_pretrained(tmp_path / "capped")
    lm.tokenizer.save_pretrained(tmp_path / "capped")
    capped = load_lm(resolve({"pretrained": str(tmp_path / "capped")}), device="cpu", batch_size=1)
    check_against_the_models_own_logits(capped, encoded, frozen_states(capped, encoded), 1e-5)


def test_a_model_in_bfloat16_gives_states_in_float32(tiny_model: Path, encoded: list[Encoded]) -> None:
    source = resolve({"pretrained": str(tiny_model), "dtype": "bfloat16"})
    lm = load_lm(source, device="cpu", batch_size=1)
    states = frozen_states(lm, encoded)
    assert {states.hidden.dtype, states.log_total.dtype} == {torch.float32}
    check_against_the_models_own_logits(lm, encoded, states, 0.05)


def test_the_frozen_pass_leaves_logits_and_weights_as_they_are(lm: Any, encoded: list[Encoded]) -> None:
    """Acceptance property 1."""
    ids = torch.tensor([encoded[0].token_ids])
    before = lm.model(ids).logits, tensor_fingerprints(lm.model)
    frozen_states(lm, encoded, cache=False)
    assert torch.equal(lm.model(ids).logits, before[0]) and tensor_fingerprints(lm.model) == before[1]
    assert not any(module._forward_pre_hooks for module in lm.model.modules())


def test_the_second_pass_comes_from_the_cache_and_is_the_same(
    lm: Any, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = frozen_states(lm, encoded)
    assert equal(first, frozen_states(lm, encoded, cache=False), atol=1e-6)
    forwards = lm.work.forwards
    assert equal(first, frozen_states(lm, encoded))
    # Another toolbox gives tools other numbers; the states are the same.
    moved = [Encoded(row.token_ids, [t - 3 if t <= FIRST_TOOL else t for t in row.targets]) for row in encoded]
    assert torch.equal(frozen_states(lm, moved).hidden, first.hidden)
    assert lm.work.forwards == forwards


def test_rows_already_known_are_not_run_again_beside_new_ones(lm: Any, encoded: list[Encoded]) -> None:
    first = frozen_states(lm, encoded[:1])
    both = frozen_states(lm, encoded)
    assert torch.equal(both.hidden[: len(first)], first.hidden)
    assert len(list(cache_folder().rglob("*.safetensors"))) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_file_in_the_cache_is_computed_again(lm: Any, encoded: list[Encoded], damage: str) -> None:
    first = frozen_states(lm, encoded)
    files = sorted(cache_folder().rglob("*.safetensors"))
    content = files[0].read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    damaged = {"cut": content[:-40], "flip": flipped, "empty": b"", "other": files[1].read_bytes()[:-4] + content[-4:]}
    files[0].write_bytes(damaged[damage])
    again = frozen_states(lm, encoded)
    forwards = lm.work.forwards
    assert equal(first, again, atol=1e-6) and equal(again, frozen_states(lm, encoded))
    assert lm.work.forwards == forwards


def test_another_model_has_states_of_its_own(lm: Any, encoded: list[Encoded]) -> None:
    first = frozen_states(lm, encoded)
    digest = Frozen(lm).digest()
    with torch.no_grad():
        lm.model.model.layers[0].mlp.up_proj.weight[0, 0] += 1.0
    assert Frozen(lm).digest() != digest
    assert not torch.equal(frozen_states(lm, encoded).hidden, first.hidden)


def test_what_exceeds_the_caches_room_is_said_and_computed(
    lm: Any, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(hidden_states, "MOST_CACHED_BYTES", 3000)
    states = frozen_states(lm, encoded)
    assert len(list(cache_folder().rglob("*.safetensors"))) < 3
    assert capsys.readouterr().err.count("the states of the other rows are not kept") == 1
    assert equal(states, frozen_states(lm, encoded, cache=False), atol=1e-6)


def test_a_cache_that_cannot_be_written_costs_only_time(
    lm: Any, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    assert len(frozen_states(lm, encoded))
    assert "states of rows are not kept" in capsys.readouterr().err


def test_a_sample_of_word_positions_keeps_every_tool_and_weighs_the_rest(lm: Any, encoded: list[Encoded]) -> None:
    everything, some = frozen_states(lm, encoded), frozen_states(lm, encoded, word_positions=10, seed=1)
    is_word, was_word = some.targets >= 0, everything.targets >= 0
    assert int(is_word.sum()) == 10 and int((~is_word).sum()) == int((~was_word).sum()) == 2
    assert some.weights[is_word].sum() == pytest.approx(float(was_word.sum()))
    assert set(some.weights[~is_word].tolist()) == {1.0}
    places = set(zip(everything.rows.tolist(), everything.positions.tolist(), strict=True))
    assert set(zip(some.rows.tolist(), some.positions.tolist(), strict=True)) <= places
    assert equal(some, frozen_states(lm, encoded, word_positions=10, seed=1))
    assert not torch.equal(some.positions, frozen_states(lm, encoded, word_positions=10, seed=2).positions)
    with pytest.raises(HarnessError, match="ask for one or more"):
        frozen_states(lm, encoded, word_positions=0)


def test_no_rows_and_rows_without_counted_positions_have_no_states(lm: Any, encoded: list[Encoded]) -> None:
    assert frozen_states(lm, []).hidden.shape == (0, 32)
    silent = Encoded(encoded[2].token_ids, [IGNORED] * len(encoded[2].targets))
    states = frozen_states(lm, [silent, encoded[0]])
    assert set(states.rows.tolist()) == {1}


def test_a_model_whose_head_cannot_be_found_is_refused_in_a_sentence(lm: Any, encoded: list[Encoded]) -> None:
    lm.model.get_output_embeddings = lambda: None
    with pytest.raises(HarnessError, match="no output head apart from the rest; use a causal language"):
        frozen_states(lm, encoded)


def test_logits_that_are_changed_in_an_unknown_way_are_refused(lm: Any, encoded: list[Encoded]) -> None:
    forward = type(lm.model).forward

    def squared(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = forward(lm.model, *args, **kwargs)
        answer.logits = answer.logits**2
        return answer

    lm.model.forward = squared.__get__(lm.model)
    with pytest.raises(HarnessError, match="changes its logits after the output head in a way of its own"):
        frozen_states(lm, encoded)


def test_logits_that_are_not_numbers_are_refused(lm: Any, encoded: list[Encoded]) -> None:
    with torch.no_grad():
        lm.model.model.norm.weight[0] = float("nan")
    with pytest.raises(HarnessError):
        frozen_states(lm, encoded)
