"""LoRA layers and gated feed-forward layers that keep less for the backward pass and go over their tensors less often.

What they give is what PEFT's and transformers' own give, up to the order of sums. They stand in for those only while a model
is trained, and only where a layer is of a known kind and the first of its kind was tried out on numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.autograd.function import once_differentiable

from harness.methods.chance import Chance
from harness.methods.lean_steps import lean_norm, lean_rotations
from harness.models.tree.elementwise import gated, gated_back, is_ours
from harness.models.tree.fitness import LOW_PRECISION_TOLERANCE, TOLERANCE, has_hooks, has_other_forward
from harness.models.tree.quick_layers import inputs_to_try, is_silu, turning

Tensor = torch.Tensor
TRIED_ROWS = 4


@contextmanager
def lean(model: torch.nn.Module) -> Iterator[None]:
    """Within it the layers of ``model`` that are known are run in the lean way; what they give is the same up to rounding."""
    exchanged: list[tuple[torch.nn.Module, Any]] = []  # with the forward that stood there
    try:
        # The feed-forward layers call their parts, so these come first.
        for find in (_lean_lora, _lean_gated, lean_norm):
            tried: dict[object, bool] = {}
            for module in model.modules():
                forward = None if has_hooks(module) or has_other_forward(module) else find(module)
                if forward is None:
                    continue
                kind = _kind_of(module)
                if kind not in tried:
                    tried[kind] = _is_same(module, forward)
                if tried[kind]:
                    exchanged.append((module, vars(module).get("forward")))
                    vars(module)["forward"] = forward
        with turning(list(lean_rotations(model))):
            yield
    finally:
        for module, before in reversed(exchanged):
            vars(module).pop("forward", None)
            if before is not None:
                vars(module)["forward"] = before


@dataclass(frozen=True)
class Update:
    """What makes a layer of its inputs: ``base(x) + scaling * B A x``.

    ``a`` (rank, inputs) and ``b`` (outputs, rank) take gradients; ``weight`` (outputs, inputs) and ``bias`` are frozen. Without
    ``weight`` the base is called as it is.
    """

    a: Tensor
    b: Tensor
    scaling: float
    weight: Tensor | None
    bias: Tensor | None

    def run(self, flat: Tensor, base: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return outputs (M, outputs) and ``A x`` (M, rank) of inputs (M, inputs)."""
        inner = flat.to(self.a.dtype) @ self.a.t()
        if base is None:
            assert self.weight is not None
            result = torch.nn.functional.linear(flat, self.weight, self.bias)
            return _add_(result, inner, self.b.t(), self.scaling), inner
        if base.dtype == inner.dtype:
            return torch.addmm(base, inner, self.b.t(), alpha=self.scaling), inner
        return (base + (inner @ self.b.t()).mul_(self.scaling)).to(base.dtype), inner

    def back(self, upstream: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of ``A x`` (M, rank) and of B, from that of the outputs (M, outputs)."""
        wide = upstream.to(self.b.dtype)
        # The product of the narrow side from the left is half as fast again.
        return (wide @ self.b).mul_(self.scaling), (inner.t() @ wide).t().mul(self.scaling)

    def back_to_inputs(self, upstream: Tensor, of_inner: Tensor) -> Tensor:
        """Return the gradient of the inputs (M, inputs); that through the base only where its weight is known."""
        if self.weight is None:
            return (of_inner @ self.a).to(upstream.dtype)
        return _add_(upstream @ self.weight, of_inner, self.a, 1.0)


class _Lora(torch.autograd.Function):
    """A linear layer with an adapter: inputs (M, inputs) and, where it is computed apart, the base's outputs (M, outputs)."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, a: Tensor, b: Tensor, base: Tensor | None, update: Update) -> Tensor:
        result, inner = update.run(flat, base)
        ctx.update = update
        ctx.save_for_backward(flat, inner)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner = ctx.saved_tensors
        (upstream,) = upstreams
        of_inner, of_b = ctx.update.back(upstream, inner)
        needs_inputs, needs_a, needs_b, needs_base, _ = ctx.needs_input_grad
        return (
            ctx.update.back_to_inputs(upstream, of_inner) if needs_inputs else None,
            of_inner.t() @ flat.to(of_inner.dtype) if needs_a else None,
            of_b if needs_b else None,
            upstream if needs_base else None,
            None,
        )


class _GatedDown(torch.autograd.Function):
    """The last layer of a gated feed-forward: ``down(act(gate) * up)``, the product made again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, a: Tensor, b: Tensor, update: Update, act: Callable[[Tensor], Tensor]
    ) -> Tensor:
        result, inner = update.run(_product(gate, up, act), None)
        ctx.update, ctx.act = update, act
        ctx.save_for_backward(gate, up, inner)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, inner = ctx.saved_tensors
        of_inner, of_b = ctx.update.back(upstreams[0], inner)
        of_product = ctx.update.back_to_inputs(upstreams[0], of_inner)
        of_a = of_inner.t() @ _product(gate, up, ctx.act).to(of_inner.dtype) if ctx.needs_input_grad[2] else None
        of_gate, of_up = _product_back(gate, up, of_product, ctx.act)
        return of_gate, of_up, of_a, of_b if ctx.needs_input_grad[3] else None, None, None


class _Gated(torch.autograd.Function):
    """``act(gate) * up``, of which only ``gate`` and ``up`` are kept."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.act = act
        ctx.save_for_backward(gate, up)
        return _product(gate, up, act)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        return *_product_back(gate, up, upstreams[0], ctx.act), None


def _product(gate: Tensor, up: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    return gated(gate, up) if is_silu(act) and is_ours(gate, up) else act(gate) * up


def _product_back(gate: Tensor, up: Tensor, upstream: Tensor, act: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the gradients of both factors of ``act(gate) * up``."""
    if is_silu(act) and is_ours(gate, up, upstream):
        return gated_back(gate, up, upstream)
    with torch.enable_grad():
        inside = gate.detach().requires_grad_(True)
        active = act(inside)
    (of_gate,) = torch.autograd.grad(active, inside, upstream * up)
    return of_gate, active.detach() * upstream


def _lean_lora(module: torch.nn.Module) -> Callable[..., Tensor] | None:
    """Return a forward for a LoRA layer of PEFT, None where ``module`` is none."""
    from peft.tuners.lora import LoraLayer

    if not isinstance(module, LoraLayer) or not hasattr(module, "base_layer") or isinstance(module, torch.nn.Embedding):
        return None
    base = module.get_base_layer()
    if not hasattr(base, "in_features") or isinstance(base, torch.nn.Embedding):
        return None
    plain = module.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        update = None if args or kwargs else _update_of(module)
        if update is None:
            return cast("Tensor", plain(x, *args, **kwargs))
        flat = x.reshape(-1, x.shape[-1])
        apart = base(x) if update.weight is None else None
        width = None if apart is None else apart.flatten(0, -2)
        result = cast("Tensor", _Lora.apply(flat, update.a, update.b, width, update))
        return result.view(*x.shape[:-1], result.shape[-1])

    return forward


def _lean_gated(module: torch.nn.Module) -> Callable[..., Tensor] | None:
    """Return a forward for a gated feed-forward layer as Llama's, None where ``module`` is none."""
    parts = {name for name, _ in module.named_children()}
    act: Any = getattr(module, "act_fn", None)
    if not parts >= {"gate_proj", "up_proj", "down_proj"} or parts - {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return None
    if not callable(act) or (isinstance(act, torch.nn.Module) and any(True for _ in act.parameters())):
        return None
    own: Any = module

    def forward(x: Tensor) -> Tensor:
        gate, up = own.gate_proj(x), own.up_proj(x)
        # Who hooked the last layer or gave it another forward is to see it called.
        update = _update_of(own.down_proj) if is_own(own.down_proj) else None
        if update is None or update.weight is None:
            return cast("Tensor", own.down_proj(_Gated.apply(gate, up, act)))
        flat = gate.flatten(0, -2), up.flatten(0, -2)
        result = cast("Tensor", _GatedDown.apply(*flat, update.a, update.b, update, act))
        return result.view(*x.shape[:-1], result.shape[-1])

    return forward


def _update_of(module: Any) -> Update | None:
    """Return what a LoRA layer does now, None where that is more than one plain adapter on a frozen base."""
    if not hasattr(module, "lora_A") or module.disable_adapters or module.merged or _is_autocast(module):
        return None
    active = [name for name in module.active_adapters if name in module.lora_A]
    if len(active) != 1 or active[0] in module.lora_variant or not getattr(module, "cast_input_dtype_enabled", True):
        return None
    (name,) = active
    first, second, dropout = module.lora_A[name], module.lora_B[name], module.lora_dropout[name]
    if type(dropout) is not torch.nn.Identity or first.bias is not None or second.bias is not None:
        return None
    base, weight, bias = module.get_base_layer(), None, None
    if type(base) is torch.nn.Linear and not (has_hooks(base) or has_other_forward(base)):
        weight, bias = base.weight, base.bias
        if weight.requires_grad or (bias is not None and bias.requires_grad):
            weight, bias = None, None
    return Update(first.weight, second.weight, float(module.scaling[name]), weight, bias)


def _is_autocast(module: torch.nn.Module) -> bool:
    return torch.is_autocast_enabled(next(module.parameters()).device.type)


def is_own(module: torch.nn.Module) -> bool:
    """Return whether a part runs what its class says, in the way of this file or not, and nobody looks on."""
    forward = vars(module).get("forward")
    return not has_hooks(module) and (forward is None or getattr(forward, "__module__", None) == __name__)


def _kind_of(module: Any) -> object:
    """Return what decides how a layer computes, as far as it can be told without trying it: a switch of its own may, too."""
    base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    own = sorted((name, value) for name, value in vars(module).items() if isinstance(value, bool | int | float | str))
    return type(module), type(base), str(next(iter(module.parameters())).dtype), tuple(own)


def _is_same(module: Any, forward: Callable[..., Tensor]) -> bool:
    """Return whether a layer gives the same in both ways, outputs and gradients, of a few rows of random numbers."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    some = next(iter(module.parameters()))
    dtype = some.dtype if some.dtype.is_floating_point else torch.float32
    chance = Chance(some.device)
    try:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn((1, TRIED_ROWS, _width_of(module)), generator=generator).to(some.device, dtype)
        with torch.no_grad():
            inputs = [x] if hasattr(module, "get_base_layer") else inputs_to_try(module, x)
        tolerance = TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE)
        for x in inputs:
            x.requires_grad_(True)
            found = []
            for way in (module.forward, forward):
                chance.restore()
                result = way(x)
                # Of a norm the sum of squares has no gradient.
                upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result)
                found.append([result, *torch.autograd.grad(result, [x, *weights], upstream)])
            for a, b in zip(*found, strict=True):
                if not bool((a - b).abs().max() <= tolerance * a.abs().max().clamp_min(1e-6)):
                    return False
        return True
    except Exception:  # whatever a layer does not accept; memory that is short here is short in a step, too
        return False
    finally:
        chance.restore()


def _width_of(module: Any) -> int:
    """Return how many numbers a layer takes."""
    if not hasattr(module, "get_base_layer") and not hasattr(module, "gate_proj"):
        return len(module.weight)
    first = module if hasattr(module, "get_base_layer") else module.gate_proj
    return int((first.get_base_layer() if hasattr(first, "get_base_layer") else first).in_features)


def _add_(result: Tensor, left: Tensor, right: Tensor, scaling: float) -> Tensor:
    """Add ``scaling * left @ right`` to ``result`` in place, in the wider type of the two."""
    if result.dtype == left.dtype:
        return result.addmm_(left, right, alpha=scaling)
    return result.copy_(result + (left @ right).mul_(scaling))
