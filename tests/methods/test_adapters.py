"""LoRA adapters: several on one base, switched, saved, loaded, merged."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.methods import adapters
from harness.models.identity import tensor_fingerprints

IDS = torch.tensor([[5, 9, 120, 33, 7, 260, 18, 300]])
LORA: dict[str, Any] = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "down_proj"]}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits[0]
    return found


def changed(model: Any, size: float) -> None:
    """Give the adapter that is on an effect."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f"lora_B.{model.active_adapter}" in name:
                parameter.add_(size)


@pytest.fixture
def two(load: Any) -> tuple[Any, torch.Tensor]:
    """A model with adapters ``right`` and ``wrong``, the second switched on, and the logits of its base."""
    base = load().model
    before = logits(base)
    model = adapters.add_adapter(base, seed=0, name="right", **LORA)
    changed(model, 0.1)
    model = adapters.add_adapter(model, seed=1, name="wrong", **LORA)
    changed(model, -0.1)
    return model, before


def test_a_fresh_adapter_changes_nothing_and_follows_its_seed(load: Any) -> None:
    models = [load().model for _ in range(3)]
    before = logits(models[0])
    adapted = [adapters.add_adapter(model, seed=seed, **LORA) for model, seed in zip(models, (0, 0, 1), strict=True)]
    assert all(torch.equal(logits(model), before) for model in adapted)
    factors = [tensor_fingerprints(model) for model in adapted]
    assert factors[0] == factors[1] != factors[2]


def test_no_part_of_an_evaluated_model_is_in_training_mode(two: tuple[Any, torch.Tensor], tmp_path: Path) -> None:
    """get_peft_model leaves wrapper and dropout in training mode on a model that is evaluated."""
    model, _ = two
    adapters.save_adapter(model, tmp_path / "a")
    adapters.load_adapter(model, tmp_path / "a", name="again")
    assert not any(module.training for module in model.modules())


def test_each_adapter_is_itself_and_all_off_is_the_base_to_the_bit(two: tuple[Any, torch.Tensor]) -> None:
    model, base = two
    assert adapters.adapter_names(model) == ["right", "wrong"] and model.active_adapter == "wrong"
    wrong = logits(model)
    with adapters.using(model, "right"):
        right = logits(model)
        with adapters.using(model, None):
            assert torch.equal(logits(model), base)
        assert torch.equal(logits(model), right)
    assert torch.equal(logits(model), wrong)
    adapters.switch_to(model, "right")
    assert torch.equal(logits(model), right)
    assert len({float(one.sum()) for one in (base, right, wrong)}) == 3


def test_what_takes_gradients_comes_back_after_another_was_used(two: tuple[Any, torch.Tensor]) -> None:
    model, _ = two

    def trained() -> set[str]:
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    before = trained()
    assert before and all(".wrong." in name for name in before)
    for name in ("right", None):
        with suppress(ZeroDivisionError), adapters.using(model, name):
            assert not trained()
            _ = 1 // 0
        assert trained() == before and model.active_adapter == "wrong"
    adapters.switch_to(model, "right")
    assert not trained()
    adapters.switch_to(model, "right", is_trained=True)
    assert trained() and all(".right." in name for name in trained())


@pytest.mark.parametrize("outer", ["right", "wrong", None])
@pytest.mark.parametrize("inner", ["right", "wrong", None])
def test_one_use_inside_another_is_what_it_says_and_leaves_the_outer_one(
    two: tuple[Any, torch.Tensor], outer: str | None, inner: str | None
) -> None:
    model, base = two
    wrong = logits(model)
    with adapters.using(model, "right"):
        expected = {None: base, "wrong": wrong, "right": logits(model)}
    taking = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with adapters.using(model, outer):
        with suppress(ZeroDivisionError), adapters.using(model, inner):
            assert torch.equal(logits(model), expected[inner]) and adapters.are_off(model) == (inner is None)
            _ = 1 // 0
        assert torch.equal(logits(model), expected[outer]) and adapters.are_off(model) == (outer is None)
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(logits(model), wrong) and model.active_adapter == "wrong"
    assert taking == [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_an_adapter_switched_to_is_on_also_where_all_were_off(two: tuple[Any, torch.Tensor]) -> None:
    model, base = two
    with adapters.using(model, None):
        adapters.switch_to(model, "right")
        assert not torch.equal(logits(model), base)
    assert model.active_adapter == "wrong" and not adapters.are_off(model)


def test_a_reference_inside_a_loss_leaves_the_gradients_as_they_are(two: tuple[Any, torch.Tensor]) -> None:
    model, _ = two

    def gradient(with_reference: bool) -> list[torch.Tensor]:
        model.zero_grad()
        score = model(input_ids=IDS).logits.log_softmax(-1)[0, :, 7].sum()
        if with_reference:
            with torch.no_grad(), adapters.using(model, None):
                reference = model(input_ids=IDS).logits.log_softmax(-1)[0, :, 7].sum()
            score = score - reference
        score.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    assert all(torch.equal(*pair) for pair in zip(gradient(False), gradient(True), strict=True))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_adapters_saved_apart_come_back_under_any_name(load: Any, tmp_path: Path, quantization: str) -> None:
    base = load(quantization=quantization).model
    model = adapters.add_adapter(base, seed=0, name="right", **LORA)
    changed(model, 0.1)
    right = logits(model)
    model = adapters.add_adapter(model, seed=1, **LORA)
    changed(model, -0.1)
    default = logits(model)
    adapters.save_adapter(model, tmp_path / "default")
    adapters.save_adapter(model, tmp_path / "right", name="right")
    for name in ("default", "right"):
        assert {file.name for file in (tmp_path / name).iterdir()} >= {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        assert not [path for path in (tmp_path / name).iterdir() if path.is_dir()]
        assert str(tmp_path) not in (tmp_path / name / "adapter_config.json").read_text(encoding="utf-8")
    again = adapters.load_adapter(load(quantization=quantization).model, tmp_path / "right", name="one")
    assert torch.equal(logits(again), right)
    again = adapters.load_adapter(again, tmp_path / "default", name="two")
    assert torch.equal(logits(again), default)
    with adapters.using(again, "one"):
        assert torch.equal(logits(again), right)
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_the_adapter_that_is_on_is_merged_and_the_others_are_gone(two: tuple[Any, torch.Tensor]) -> None:
    model, _ = two
    adapters.switch_to(model, "right")
    right, before = logits(model), adapters.probe_loss(model, IDS[0].tolist())
    merged, probe = adapters.hand_on(model, probe_ids=IDS[0].tolist(), before=0.5)
    assert torch.allclose(logits(merged), right, atol=1e-5)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert probe.is_merged and probe.before == 0.5 and probe.adapted == before
    assert probe.after == pytest.approx(before, abs=1e-4)


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head", "q_proj"]])
def test_an_adapter_on_one_of_two_tied_matrices_is_merged_into_its_own(load: Any, targets: list[str]) -> None:
    model = adapters.add_adapter(load().model, seed=0, rank=4, alpha=8.0, target_modules=targets)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    expected = logits(model)
    merged, probe = adapters.hand_on(model, probe_ids=IDS[0].tolist(), before=0.5)
    assert torch.allclose(logits(merged), expected, atol=1e-4) and probe.is_merged
    assert merged.config.tie_word_embeddings is False


def test_on_quantised_weights_the_adapter_stays(load: Any) -> None:
    model = adapters.add_adapter(load(quantization="nf4").model, seed=0, **LORA)
    changed(model, 0.1)
    expected = logits(model)
    handed_on, probe = adapters.hand_on(model, probe_ids=IDS[0].tolist(), before=0.0)
    assert torch.equal(logits(handed_on), expected) and not probe.is_merged
    assert adapters.adapter_names(handed_on) == ["default"]


def test_what_cannot_be_is_refused_in_a_sentence(two: tuple[Any, torch.Tensor], load: Any, tmp_path: Path) -> None:
    model, _ = two
    with pytest.raises(HarnessError, match="has an adapter 'right' already; give the other one another name"):
        adapters.add_adapter(model, seed=0, name="right", **LORA)
    for call in (
        lambda: adapters.switch_to(model, "rigt"),
        lambda: adapters.save_adapter(model, tmp_path / "x", name="rigt"),
        lambda: adapters.using(model, "rigt").__enter__(),
    ):
        with pytest.raises(HarnessError, match="has no adapter 'rigt'; did you mean 'right'"):
            call()
    with pytest.raises(HarnessError, match="fit no layer of the model"):
        adapters.add_adapter(load().model, seed=0, rank=2, alpha=2.0, target_modules=["z_proj"])


@pytest.mark.parametrize("name", ["good.one", "a/b", "a\\b", "..", "", "keys", "train"])
def test_a_name_no_adapter_can_have_is_refused_in_a_sentence(load: Any, tmp_path: Path, name: str) -> None:
    model = load().model
    for call in (
        lambda: adapters.add_adapter(model, seed=0, name=name, **LORA),
        lambda: adapters.load_adapter(model, tmp_path, name=name),
    ):
        with pytest.raises(HarnessError, match=r"no adapter can be called '.*'; a name has no dot and no slash in it"):
            call()
    assert not hasattr(model, "peft_config")


def test_an_adapter_that_came_with_the_model_is_not_trained_over(load: Any, tmp_path: Path) -> None:
    model = adapters.add_adapter(load().model, seed=0, **LORA)
    adapters.save_adapter(model, tmp_path / "given")
    given = load(quantization="nf4", peft=str(tmp_path / "given")).model
    for name in ("default", "other"):
        with pytest.raises(HarnessError, match=r"has an adapter already \(peft=...\)"):
            adapters.add_adapter(given, seed=0, name=name, **LORA)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_hidden_layers": 3}, "was made for another model: base_model.model.model.layers.2"),
        ({"hidden_size": 128}, "cannot be put on the model: Error"),
    ],
    ids=["deeper", "wider"],
)
def test_an_adapter_of_another_base_is_refused(
    load: Any, folders: Any, tmp_path: Path, settings: dict[str, int], said: str
) -> None:
    """PEFT drops what it has for layers that are not there without a word."""
    from transformers import LlamaForCausalLM

    other = LlamaForCausalLM.from_pretrained(folders(**settings))
    trained = adapters.add_adapter(other, rank=4, alpha=8.0, target_modules=["q_proj"], seed=0)
    adapters.save_adapter(trained, tmp_path)
    with pytest.raises(HarnessError, match=said):
        adapters.load_adapter(load().model, tmp_path)


def test_a_base_is_given_back_as_it_was(two: tuple[Any, torch.Tensor], tmp_path: Path) -> None:
    model, _ = two
    ids = torch.tensor([[5, 9, 120]])
    with torch.no_grad(), adapters.using(model, None):
        expected = model(input_ids=ids).logits
    base = adapters.without_adapters(model)
    with torch.no_grad():
        assert torch.equal(base(input_ids=ids).logits, expected)
    assert adapters.adapter_names(base) == [] and not any("lora" in name for name, _ in base.named_modules())
    assert adapters.add_adapter(base, rank=2, alpha=4.0, target_modules=["q_proj"], seed=0)
