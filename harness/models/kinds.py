"""``--model KIND``: how each kind is found, checked, loaded and what it answers; one row a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.imports import without_collecting
from harness.models.lm import CAUSAL, ENCODER, TOKENIZER_ONLY, VLLM, Promise
from harness.models.vllm.asking import NO_WEIGHTS
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.models.source import ModelSource


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        has_weights: whether there is a model to load, quantise and place, or a tokenizer alone.
        promise: what its LM will answer, which says what tasks it fits.
        check: does every check of a source that needs no weights, and returns the tokenizer.
        load: returns the LM, given the source, the device (None: the best there is) and the batch size.
        unread: returns the LM without its weights, which counts what would enter the model (``models.unread``).
        device: returns where it computes, given what is wanted, and raises ``HarnessError`` where it cannot.
        engine: names what computes in torch's place, with its version; None where torch does.
        refusal: why a method that needs the weights in hand cannot have them; empty where it can.
    """

    name: str
    has_weights: bool
    promise: Promise
    check: Callable[[ModelSource], Any]
    load: Callable[[ModelSource, str | None, int | str], LM]
    unread: Callable[[ModelSource], Any]
    device: Callable[[str | None], str]
    engine: Callable[[], str | None] = lambda: None
    refusal: str = ""


def _load_causal(source: ModelSource, device: str | None, batch_size: int | str) -> LM:
    from harness.models.loading import load_lm

    return load_lm(source, device=device, batch_size=batch_size)


def _unread(name: str) -> Callable[[ModelSource], Any]:
    def made(source: ModelSource) -> Any:
        with without_collecting():
            from harness.models import unread

        return getattr(unread, f"unread_{name}")(source)

    return made


def _pick_device(wanted: str | None) -> str:
    from harness.models.loading import pick_device

    return pick_device(wanted)


def _check_encoder(source: ModelSource) -> Any:
    from harness.models.encoder_loading import check

    return check(source)


def _load_encoder(source: ModelSource, device: str | None, batch_size: int | str) -> LM:
    from harness.models.encoder_loading import load

    return load(source, device=device, batch_size=batch_size)


def _load_tokenizer_only(source: ModelSource, _device: str | None, _batch_size: int | str) -> LM:
    from harness.models.tokenizer_only import TokenizerOnly

    return TokenizerOnly(source.load_tokenizer())


def _check_vllm(source: ModelSource) -> Any:
    from harness.models.vllm.loading import check

    return check(source)


def _load_vllm(source: ModelSource, device: str | None, batch_size: int | str) -> LM:
    from harness.models.vllm.loading import load

    return load(source, device, batch_size)


def _vllm_device(wanted: str | None) -> str:
    from harness.models.vllm.loading import place

    return place(wanted)


def _vllm_engine() -> str:
    from harness.models.vllm.engine import installed

    return f"vllm {installed()}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("hf", True, CAUSAL, lambda source: source.check(), _load_causal, _unread("causal"), _pick_device),
        Kind(
            "tokenizer",
            False,
            TOKENIZER_ONLY,
            lambda source: source.load_tokenizer(),
            _load_tokenizer_only,
            _unread("tokenizer"),
            lambda _: "cpu",
        ),
        Kind("encoder", True, ENCODER, _check_encoder, _load_encoder, _unread("encoder"), _pick_device),
        Kind("vllm", True, VLLM, _check_vllm, _load_vllm, _unread("causal"), _vllm_device, _vllm_engine, NO_WEIGHTS),
    )
}


def kind_of(name: str) -> Kind:
    """Return the kind that ``--model`` names. Raises ``HarnessError`` when there is none of that name."""
    if name not in KINDS:
        raise HarnessError(
            f"--model '{printable(name)}' is unknown; {suggestion(name, tuple(KINDS))} (API models have no weights for a "
            "method to change; use lm_eval for them)"
        )
    return KINDS[name]
