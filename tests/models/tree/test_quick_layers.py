"""Norms, gates and rotary angles by compiled functions: torch's within rounding, in a pass only, and missed by nobody."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.methods.lean_layers import lean
from harness.models.tree import elementwise, elementwise_kernel, few_rows_kernel, row_kernel
from harness.models.tree.quick_layers import QuickLayers

IDS = torch.tensor([[3, 14, 15, 9, 2, 6, 5]])


def hidden_states(model: Any) -> torch.Tensor:
    states: torch.Tensor = model.model(input_ids=IDS, use_cache=False).last_hidden_state
    return states


@pytest.mark.parametrize("size", [1, 7, 8, 33, 4096])
def test_gates_are_those_of_torch_from_the_smallest_to_the_largest_number(size: int) -> None:
    """Property: no score moves but by rounding; what is no number stays none."""
    gate = torch.cat([torch.linspace(-95, 95, size), torch.tensor([torch.nan, torch.inf, 0.0, -0.0])])
    up = torch.linspace(-3, 5, len(gate))
    found, right = elementwise.gated(gate, up), torch.nn.functional.silu(gate.double()) * up.double()
    torch.testing.assert_close(found, right.float(), rtol=2e-6, atol=1e-30, equal_nan=True)


def test_a_pass_gives_the_same_and_leaves_nothing_behind(model: Any) -> None:
    """Property: forwards and the function that turns are the model's own again, also after a pass that fails."""
    quick, before = QuickLayers(model), [vars(module).get("forward") for module in model.modules()]
    with torch.no_grad():
        right = hidden_states(model)
        with quick.used():
            exchanged = sum("forward" in vars(module) for module in model.modules())
            found = hidden_states(model)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    layers = model.config.num_hidden_layers
    assert exchanged == (
        3 * layers + 1 if elementwise_kernel.kernels() else 0
    )  # two norms and a gate each, a last norm
    with pytest.raises(ValueError, match="stop"), quick.used():
        raise ValueError("stop")
    assert [vars(module).get("forward") for module in model.modules()] == before


def test_what_takes_gradients_goes_the_models_own_way(model: Any) -> None:
    """Property: a pass that is differentiated gives the gradients of the plain one."""
    slopes = []
    weight = model.model.layers[0].mlp.up_proj.weight
    for is_quick in (False, True):
        with QuickLayers(model).used() if is_quick else torch.enable_grad():
            slopes.append(torch.autograd.grad(hidden_states(model).square().sum(), weight)[0])
    assert torch.equal(*slopes)


def test_other_types_go_the_models_own_way(model: Any) -> None:
    """Property: bfloat16 and float64 are computed as they were, bit for bit."""
    for dtype in (torch.bfloat16, torch.float64):
        other = copy.deepcopy(model).to(dtype)
        with torch.no_grad():
            right = hidden_states(other)
            with QuickLayers(other).used():
                assert torch.equal(hidden_states(other), right)


def test_a_layer_that_somebody_hooked_or_exchanged_is_left_alone(model: Any) -> None:
    """Property: hooks see what they saw, and another forward or activation stays in use."""
    model = copy.deepcopy(model)
    quick, seen = QuickLayers(model), []
    first, second = model.model.layers[0], model.model.layers[1]
    hook = first.mlp.act_fn.register_forward_hook(lambda *_: seen.append("act"))
    second.input_layernorm.forward = lambda x: x * 2
    with torch.no_grad():
        right = hidden_states(model)
        with quick.used():
            torch.testing.assert_close(hidden_states(model), right, rtol=1e-5, atol=1e-6)
    hook.remove()
    assert seen == ["act", "act"]


def test_a_norm_that_computes_something_else_is_not_taken_for_llamas(model: Any) -> None:
    """Property: a layer of a known name is tried out; one that adds 1 to its weight keeps its own forward."""

    class OtherRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.full((16,), 0.5)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (1 + self.weight) * x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()

    layer = torch.nn.ModuleList([OtherRMSNorm()])
    with QuickLayers(layer).used():
        assert "forward" not in vars(layer[0])


def test_functions_that_compute_something_else_are_not_used() -> None:
    """Property: what a compiler made is tried out before it is used."""

    def nothing(*_: object) -> None:
        return None

    assert not elementwise_kernel.is_right(elementwise_kernel.Kernels(*[nothing] * 5))


def test_a_machine_that_cannot_compile_keeps_the_models_own_forwards(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Property: without a compiler scores are as before, and nothing is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    elementwise_kernel.kernels.cache_clear()
    try:
        with QuickLayers(model).used():
            assert not any("forward" in vars(module) for module in model.modules())
        assert not elementwise.is_ours(torch.ones(3))
    finally:
        elementwise_kernel.kernels.cache_clear()


class CutMLP(torch.nn.Module):
    """Gates that are cut off, as some models have them; few numbers are as large."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (torch.nn.Linear(16, 16, bias=False) for _ in range(3))
        self.act_fn = torch.nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=10.0)) * self.up_proj(x))
        return found


def test_a_layer_that_cuts_large_gates_off_is_left_alone() -> None:
    torch.manual_seed(0)
    part, x = CutMLP().requires_grad_(False), torch.randn(1, 3, 16) * 100
    right = part(x)
    with torch.no_grad(), QuickLayers(part).used():
        assert torch.equal(part(x), right)
    with lean(part):
        assert torch.equal(part(x.requires_grad_(True)), right)


def test_a_gate_that_somebody_hooked_is_heard_in_training(model: Any) -> None:
    ids = torch.arange(10)[None]
    model.model.layers[1].mlp.act_fn.register_forward_hook(lambda module, given, found: found * 0)
    right = model(ids).logits
    with lean(model):
        assert torch.allclose(model(ids).logits, right, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_trial_does_not_depend_on_what_torch_was_told_before(dtype: torch.dtype) -> None:
    finders = elementwise_kernel.kernels, row_kernel._kernel, few_rows_kernel.kernel
    right = [find() is None for find in finders]
    for find in finders:
        find.cache_clear()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.inference_mode(), torch.device("meta"):
            assert [find() is None for find in finders] == right
    finally:
        torch.set_default_dtype(before)
