"""Layers whose norms, gates and rotary angles may be computed in one pass over memory: found and tried out once, used in a pass.

What they give is what the layers' own forwards give, up to the order of sums. They stand in for those while it lasts only, and
leave alone whatever somebody hooked, exchanged or gave another forward.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch

from harness.models.tree.elementwise import can_turn, gated, is_ours, norm, turned
from harness.models.tree.elementwise_kernel import kernels

Tensor = torch.Tensor
Forward = Callable[..., Tensor]
# The function that turns queries and keys, by the name that transformers gives it in each of its models.
ROTARY = "apply_rotary_pos_emb"
SILU = ("SiLU", "SiLUActivation")
TOLERANCE = 1e-5
TRIED_ROWS = 3
# Models cut gates off at some 7 to 16; beside the epsilon of a norm its inputs have to be small.
LARGE_GATE, SMALL = 64.0, 1e-3


class QuickLayers:
    """The layers of a model that compiled functions may stand in for while nothing takes gradients."""

    def __init__(self, model: torch.nn.Module) -> None:
        some = next(model.parameters(), None)
        if some is None or some.device.type != "cpu" or kernels() is None:
            self._layers: list[tuple[torch.nn.Module, Forward]] = []
            self._rotations: list[tuple[Any, Callable[..., Any], Callable[..., Any]]] = []
            return
        self._layers = list(_known_layers(model))
        self._rotations = [(home, plain, _rotary(plain)) for home, plain in rotations(model)]
        self._rotations = [found for found in self._rotations if _turns_alike(*found[1:])]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it a pass of the model runs them."""
        exchanged = [(module, forward) for module, forward in self._layers if not _is_touched(module)]
        for module, forward in exchanged:
            vars(module)["forward"] = forward
        try:
            with turning(self._rotations):
                yield
        finally:
            for module, _ in exchanged:
                vars(module).pop("forward", None)


def norm_epsilon(module: Any) -> float | None:
    """Return what an RMS norm as Llama's adds to the mean, None where ``module`` is none."""
    if not type(module).__name__.endswith("RMSNorm"):
        return None
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", getattr(module, "eps", None))
    is_known = isinstance(weight, Tensor) and weight.dim() == 1 and isinstance(epsilon, float)
    return epsilon if is_known else None


def is_silu(act: Any) -> bool:
    """Return whether an activation is SiLU's own module, which nobody hooked or gave another forward."""
    return type(act).__name__ in SILU and not _is_touched(act)


def rotations(model: torch.nn.Module) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Yield the modules of Python that hold the attention layers of ``model``, with the function of each that turns."""
    homes = {type(module).__module__ for module in model.modules() if "Attention" in type(module).__name__}
    for home in (sys.modules.get(name) for name in sorted(homes)):
        if callable(getattr(home, ROTARY, None)):
            yield home, getattr(home, ROTARY)


@contextmanager
def turning(found: list[tuple[Any, Callable[..., Any], Callable[..., Any]]]) -> Iterator[None]:
    """Within it each of those modules turns in another way; who put another function in its place keeps that one."""
    exchanged = [(home, plain, quick) for home, plain, quick in found if getattr(home, ROTARY, None) is plain]
    for home, _, quick in exchanged:
        setattr(home, ROTARY, quick)
    try:
        yield
    finally:
        for home, plain, _ in exchanged:
            setattr(home, ROTARY, plain)


def _known_layers(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, Forward]]:
    tried: dict[object, bool] = {}
    for module in model.modules():
        forward = None if _is_touched(module) else _norm(module) or _gated(module)
        if forward is None:
            continue
        own = sorted(
            (name, value) for name, value in vars(module).items() if isinstance(value, bool | int | float | str)
        )
        kind = (type(module), type(getattr(module, "act_fn", None)), *own)
        if kind not in tried:
            tried[kind] = _is_same(module, forward)
        if tried[kind]:
            yield module, forward


def _is_touched(module: torch.nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _norm(module: Any) -> Forward | None:
    epsilon = norm_epsilon(module)
    if epsilon is None:
        return None
    plain = type(module).forward

    def forward(x: Tensor) -> Tensor:
        weight = module.weight
        if torch.is_grad_enabled() or not is_ours(x, weight) or x.shape[-1] != len(weight):
            return cast("Tensor", plain(module, x))
        return norm(x, weight, epsilon)

    return forward


def _gated(module: Any) -> Forward | None:
    parts = {name for name, _ in module.named_children()}
    is_known = parts - {"act_fn"} == {"gate_proj", "up_proj", "down_proj"}
    if not is_known or not is_silu(getattr(module, "act_fn", None)):
        return None

    def forward(x: Tensor) -> Tensor:
        gate, up = module.gate_proj(x), module.up_proj(x)
        is_quick = not torch.is_grad_enabled() and is_ours(gate, up) and gate.shape == up.shape
        inner = gated(gate, up) if is_quick and is_silu(module.act_fn) else module.act_fn(gate) * up
        return cast("Tensor", module.down_proj(inner))

    return forward


def _rotary(plain: Callable[..., Any]) -> Callable[..., Any]:
    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        is_quick = not (args or kwargs or torch.is_grad_enabled()) and can_turn(q, cos, sin) and can_turn(k, cos, sin)
        if not is_quick:
            return plain(q, k, cos, sin, *args, **kwargs)
        return turned(q, cos, sin), turned(k, cos, sin)

    return rotary


def _is_same(module: Any, forward: Forward) -> bool:
    """Return whether a layer gives the same in both ways, for a few rows of random numbers."""
    weight = getattr(module, "weight", None)
    with suppress(Exception), torch.no_grad():  # whatever a layer does not accept
        width = len(weight) if isinstance(weight, Tensor) else module.gate_proj.in_features
        x = torch.randn((1, TRIED_ROWS, width), generator=torch.Generator().manual_seed(0))
        return all(_near(type(module).forward(module, some), forward(some)) for some in inputs_to_try(module, x))
    return False


def inputs_to_try(module: Any, x: Tensor) -> list[Tensor]:
    """Return inputs of a size that shows what a layer does to large gates, such as cutting them off, or to small numbers."""
    if not hasattr(module, "gate_proj"):
        return [x, x * SMALL]
    gates = module.gate_proj(x).detach().abs().max().clamp_min(SMALL)
    return [x, x * (LARGE_GATE / gates)]


def _turns_alike(plain: Callable[..., Any], quick: Callable[..., Any]) -> bool:
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn((1, TRIED_ROWS, heads, 20), generator=draw).transpose(1, 2) for heads in (4, 2))
    angles = torch.randn((1, TRIED_ROWS, 20), generator=draw)
    with suppress(Exception), torch.no_grad():  # another kind of function of that name
        return all(map(_near, plain(q, k, angles.cos(), angles.sin()), quick(q, k, angles.cos(), angles.sin())))
    return False


def _near(right: Tensor, found: Tensor) -> bool:
    if right.shape != found.shape:
        return False
    return bool((right - found).abs().max() <= TOLERANCE * right.abs().max().clamp_min(1e-6))
