"""Training in bounded memory: the same losses and weights in parts, after memory ran out, and where nothing is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from harness import HarnessError, control_groups
from harness.methods import adapters, training_memory
from harness.methods.chunked_loss import next_token_loss
from harness.methods.lean_layers import lean
from harness.methods.micro_batches import MeanOf, split
from harness.methods.training import IGNORED, Batch, pad, train
from harness.methods.training_memory import Room, free_bytes
from harness.models.tree.elementwise_kernel import kernels

SETTINGS: dict[str, Any] = {"learning_rate": 0.01, "warmup_steps": 1, "label": "Training"}
WINDOWS = [
    [(7 * row + 3 * place) % 390 + 1 for place in range(length)] for row, length in enumerate((24, 9, 24, 5, 16))
]
ROWS = [(ids, [IGNORED] * row + ids[row:]) for row, ids in enumerate(WINDOWS)]


@pytest.fixture
def model(load: Any) -> Any:
    return adapted(load)


def adapted(load: Any, targets: tuple[str, ...] = ("all-linear",), **settings: Any) -> Any:
    model = adapters.add_adapter(load(**settings).model, rank=4, alpha=8.0, target_modules=targets, seed=0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def plain_loss(model: Any, batch: Batch) -> torch.Tensor:
    """The mean over all labels, from logits of all positions."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.labels[:, 1:].flatten())


def gradients(model: Any) -> torch.Tensor:
    found = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    model.zero_grad()
    return torch.cat(found)


def tokens_at_once(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(training_memory, "CPU_TOKENS", tokens)


def trained(model: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]


def endless(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "lm_head"), ("down_proj",)])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_loss_in_chunks_and_lean_layers_give_the_plain_loss_and_gradients(
    load: Any, targets: tuple[str, ...], quantization: str
) -> None:
    model = adapted(load, targets, tied="lm_head" not in targets, quantization=quantization)
    batch = pad(ROWS)
    expected = plain_loss(model, batch)
    expected.backward()
    wanted = gradients(model)
    with lean(model):
        found = next_token_loss(model, batch)
        found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert float((gradients(model) - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"tied": False}], ids=["bfloat16", "a head of its own"])
def test_other_weights_give_the_plain_loss(load: Any, settings: dict[str, Any]) -> None:
    model = adapted(load, **settings)
    with lean(model), torch.no_grad():
        assert float(next_token_loss(model, pad(ROWS))) == pytest.approx(float(plain_loss(model, pad(ROWS))), abs=1e-2)


def test_who_looks_at_a_layer_sees_it_called_while_it_is_lean(model: Any) -> None:
    layers = [module for module in model.modules() if hasattr(module, "down_proj")]
    seen: list[torch.Tensor] = []
    layers[1].down_proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    own = layers[0].act_fn.forward  # as accelerate leaves one: to be there afterwards
    vars(layers[0])["forward"], layers[0]._hf_hook = layers[0].forward, own
    with lean(model):
        assert "forward" in vars(layers[1])
        next_token_loss(model, pad(ROWS))
    assert "forward" in vars(layers[0]) and "forward" not in vars(layers[1]) and seen


def test_norms_and_rotary_angles_are_the_models_own_again_afterwards(model: Any) -> None:
    """Forwards and the function that turns are put back, and a norm that is trained keeps its own all along."""
    from transformers.models.llama import modeling_llama

    norms = [module for module in model.modules() if type(module).__name__ == "LlamaRMSNorm"]
    norms[0].weight.requires_grad_(True)
    plain = modeling_llama.apply_rotary_pos_emb
    with lean(model):
        next_token_loss(model, pad(ROWS)).backward()
        is_lean = ["forward" in vars(norm) for norm in norms]
        assert (modeling_llama.apply_rotary_pos_emb is plain) == (kernels() is None)
    assert is_lean == [False, *[True] * (len(norms) - 1)]
    assert norms[0].weight.grad is not None and modeling_llama.apply_rotary_pos_emb is plain
    assert not any("forward" in vars(norm) for norm in norms)


def test_weights_that_a_hook_on_the_head_uses_get_their_gradients(load: Any) -> None:
    model, batch = adapted(load), pad(ROWS)
    bias = torch.nn.Parameter(torch.linspace(-1, 1, len(model.get_output_embeddings().weight)))
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: output + bias)
    (wanted,) = torch.autograd.grad(plain_loss(model, batch), bias)
    (found,) = torch.autograd.grad(next_token_loss(model, batch), bias)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_gradients_from_before_are_no_part_of_a_step(load: Any) -> None:
    outcomes = []
    for is_used in (False, True):
        model = adapted(load)
        if is_used:
            plain_loss(model, pad(ROWS[:1])).backward()
        train(model, [pad(ROWS)], steps=1, **SETTINGS)
        outcomes.append(trained(model))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_nothing_of_the_size_of_the_vocabulary_is_kept_for_the_backward_pass(model: Any) -> None:
    batch, sizes = pad(ROWS), []
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            sizes.append(tensor.shape)
        return tensor

    with lean(model), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        next_token_loss(model, batch)
    vocabulary = len(model.get_output_embeddings().weight)
    assert sizes and not [shape for shape in sizes if vocabulary in shape]


def test_a_step_in_parts_is_the_step_at_once(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over all labels of the step, not the mean of means: every number of tokens at once trains the same."""
    outcomes = []
    for tokens in (4096, 50, 24, 1):
        tokens_at_once(monkeypatch, tokens)
        model = adapted(load)
        log = train(model, endless(pad(ROWS)), steps=3, **SETTINGS)
        outcomes.append((log, trained(model)))
    assert [log.micro_batches for log, _ in outcomes] == [3, 6, 12, 15]
    for log, weights in outcomes[1:]:
        assert log.losses == pytest.approx(outcomes[0][0].losses, abs=1e-5)
        assert (log.tokens, log.labels) == (outcomes[0][0].tokens, outcomes[0][0].labels)
        assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(weights, outcomes[0][1], strict=True))


def test_parts_hold_rows_of_similar_length_within_their_tokens() -> None:
    parts = split(pad(ROWS), tokens=48, mean_of=MeanOf.LABELS)
    assert [tuple(part.batch.input_ids.shape) for part in parts] == [(2, 24), (3, 16)]
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert max(part.batch.attention_mask.sum(1).max() for part in parts) == 24


def test_a_window_longer_than_the_tokens_at_once_goes_alone() -> None:
    assert [len(part.batch.labels) for part in split(pad(ROWS), tokens=16, mean_of=MeanOf.ROWS)] == [1, 1, 1, 1, 1]


def test_pairs_stay_together() -> None:
    """A loss over pairs may be split between pairs, never within one."""
    parts = split(pad(ROWS[:4]), tokens=1, mean_of=MeanOf.PAIRS)
    assert [part.batch.input_ids[:, 0].tolist() for part in parts] == [[1, 8], [15, 22]]
    with pytest.raises(ValueError, match="was given 5 rows; pairs stand one below the other"):
        split(pad(ROWS), tokens=1, mean_of=MeanOf.PAIRS)


def test_a_loss_that_says_what_it_is_the_mean_of_is_asked_in_parts(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of one's own sees whole batches, unless it says that it is a mean over labels, rows or pairs."""
    seen: list[int] = []

    def of_labels(model: Any, batch: Batch) -> torch.Tensor:
        seen.append(len(batch.labels))
        return plain_loss(model, batch)

    tokens_at_once(monkeypatch, 24)
    whole = train(adapted(load), [pad(ROWS)], steps=1, loss=of_labels, **SETTINGS)
    parts = train(adapted(load), [pad(ROWS)], steps=1, loss=of_labels, mean_of="labels", **SETTINGS)
    assert seen == [5, 1, 1, 1, 2]
    assert parts.losses == pytest.approx(whole.losses, abs=1e-5)


def test_one_label_in_the_whole_batch_is_the_loss(model: Any) -> None:
    """Rows without a label are never run."""
    ids = WINDOWS[1]
    rows = [(window, [IGNORED] * len(window)) for window in WINDOWS] + [(ids, [IGNORED] * (len(ids) - 1) + ids[-1:])]
    expected = float(plain_loss(model, pad(rows)).detach())
    log = train(model, [pad(rows)], steps=1, **SETTINGS)
    assert log.losses == pytest.approx([expected], abs=1e-5) and log.labels == 1 and log.micro_batches == 1


def test_a_step_without_a_label_is_named_and_changes_nothing(model: Any) -> None:
    before = trained(model)
    unlabelled = pad([(WINDOWS[0], [*WINDOWS[0][:1], *[IGNORED] * 23])])
    with pytest.raises(HarnessError, match="step 1 of the training has no label: each of its rows has -100"):
        train(model, [unlabelled], steps=1, **SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip(before, trained(model), strict=True)) and not model.training


def test_a_loss_that_becomes_infinite_in_the_third_part_changes_nothing(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step and the part are named; the weights are those of the step before, and no gradient is left."""
    tokens_at_once(monkeypatch, 1)
    model, calls = adapted(load), iter(range(100))
    after_one: list[torch.Tensor] = []

    def breaking(model: Any, batch: Batch) -> torch.Tensor:
        number = next(calls)
        if number == 5:
            after_one.extend(trained(model))
        return plain_loss(model, batch) * (math.inf if number == 7 else 1.0)

    with pytest.raises(
        HarnessError, match="broke down at step 2, in part 3 of 5: the loss is inf; lower learning_rate"
    ):
        train(model, endless(pad(ROWS)), steps=3, loss=breaking, mean_of="rows", **SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip(after_one, trained(model), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training


def test_a_gradient_that_is_no_number_changes_nothing(model: Any) -> None:
    before = trained(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hook = trainable[0].register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(HarnessError, match=r"broke down at step 1: the gradient's norm is nan, though the loss is \d"):
        train(model, [pad(ROWS)], steps=1, **SETTINGS)
    hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, trained(model), strict=True))


def running_out(model: Any, times: int, *, at: int) -> Callable[[], None]:
    """Let memory run out in the backward pass, ``times`` times from the ``at``-th gradient of a weight on."""
    left, seen = [times], [0]

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        seen[0] += 1
        if seen[0] >= at and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("the device has no memory left")
        return gradient

    first = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    return first.register_hook(hook).remove


def test_memory_that_runs_out_in_the_backward_pass_loses_nothing(
    load: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same step is taken again in smaller parts, from the same weights, without gradients of the pass that failed."""
    tokens_at_once(monkeypatch, 48)
    undisturbed = train(adapted(load), endless(pad(ROWS)), steps=3, **SETTINGS)
    model = adapted(load)
    running_out(model, 3, at=6)  # two while the layers are tried out, then the second part of the second step
    log = train(model, endless(pad(ROWS)), steps=3, **SETTINGS)
    assert log.losses == pytest.approx(undisturbed.losses, abs=1e-5)
    said = capsys.readouterr().err
    assert "memory ran out; training goes on with 24 tokens at a time (the step is taken again)" in said
    assert "memory ran out; training goes on with layers that run twice (the step is taken again)" in said
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_memory_that_runs_out_for_one_row_is_told_in_a_sentence(model: Any) -> None:
    before = trained(model)
    running_out(model, 100, at=1)
    with pytest.raises(
        HarnessError, match="does not hold step 1 of the training, not even one row of 24 tokens by itself"
    ):
        train(model, [pad(ROWS)], steps=1, **SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip(before, trained(model), strict=True)) and not model.training


def test_little_free_memory_makes_parts_smaller_and_layers_run_twice(
    load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plenty = train(adapted(load), endless(pad(ROWS)), steps=2, **SETTINGS)
    model = adapted(load)
    monkeypatch.setattr(
        training_memory, "free_bytes", lambda device: int(20 * 2 * training_memory.activation_bytes(model))
    )
    assert Room(model, torch.device("cpu")).tokens == 20
    log = train(model, endless(pad(ROWS)), steps=2, **SETTINGS)
    assert log.losses == pytest.approx(plenty.losses, abs=1e-5) and log.micro_batches > plenty.micro_batches
    assert "each layer of the model runs twice in training" in capsys.readouterr().err


def test_free_memory_respects_the_limit_of_a_container(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without = free_bytes(torch.device("cpu"))
    assert without is not None and without > 1 << 20
    (tmp_path / "memory.max").write_text("2000000\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("1500000\n", encoding="ascii")
    (tmp_path / "own").write_text("5:cpu,memory:/job\n0::/job/step\n", encoding="ascii")
    monkeypatch.setattr(control_groups, "MOUNTED", tmp_path)
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "own")
    assert free_bytes(torch.device("cpu")) == 500_000
    (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 300000\nactive_file 100000\n", encoding="ascii")
    assert free_bytes(torch.device("cpu")) == 800_000  # what was read from files goes when memory is short
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert free_bytes(torch.device("cpu")) > 500_000
    (tmp_path / "memory" / "job").mkdir(parents=True)  # a job of a cluster, in version 1
    (tmp_path / "memory" / "job" / "memory.limit_in_bytes").write_text("700000", encoding="ascii")
    (tmp_path / "memory" / "job" / "memory.usage_in_bytes").write_text("100000", encoding="ascii")
    assert free_bytes(torch.device("cpu")) == 600_000
