"""What a method changed in an LM: tensors, tokenizer, or what it answers; and in the model and the code below it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PROBE_TEXT = "A harness is measured by what it lets through."


@dataclass(frozen=True)
class LMState:
    """Fingerprints and sizes of an LM's tensors by name, its tokenizer's digest, and its logits (or states) on a fixed text."""

    tensors: Mapping[str, tuple[tuple[int, ...], int]]
    tokenizer: str | None
    logits: tuple[int, ...] | None

    @classmethod
    def of(cls, lm: Any) -> LMState:
        from harness.models.identity import tensor_fingerprints, tokenizer_digest

        model, tokenizer = lm.model, lm.tokenizer
        tensors: dict[str, tuple[tuple[int, ...], int]] = {}
        logits = None
        if model is not None:
            numels = {name: tensor.numel() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
            tensors = {name: (print_, numels[name]) for name, print_ in tensor_fingerprints(model).items()}
            logits = _probe_logits(model, tokenizer)
        return cls(tensors, tokenizer_digest(tokenizer) if tokenizer is not None else None, logits)

    def digest(self) -> str:
        """Return one digest of all of it."""
        return hashlib.sha256(repr([*sorted(self.tensors.items()), self.tokenizer]).encode()).hexdigest()[:16]

    def weights_changed_since(self, before: LMState) -> int:
        """Return how many weights are new or other than before; -1 when only the tokenizer is, 0 when nothing.

        A tensor under a new name is new unless its content was there before (an adapter renames what it wraps). Tensors
        that were only added count when they move the logits of a fixed text.
        """
        known = {print_ for print_, _ in before.tensors.values()}
        changed = sum(
            numel
            for name, (print_, numel) in self.tensors.items()
            if (print_ != before.tensors[name][0] if name in before.tensors else print_ not in known)
        )
        left = {print_ for print_, _ in self.tensors.values()}
        only_added = known <= left and not any(
            name in before.tensors and print_ != before.tensors[name][0] for name, (print_, _) in self.tensors.items()
        )
        if changed and only_added and self.logits == before.logits and self.tokenizer == before.tokenizer:
            return 0
        return changed or (-1 if self.tokenizer != before.tokenizer or not known <= left else 0)


@dataclass(frozen=True)
class ModelState:
    """All that says whether a model is as it was when it was loaded: tensors, modules and hooks, configuration."""

    tensors: Mapping[str, tuple[int, ...]]
    ties: tuple[tuple[str, int], ...]
    modules: tuple[Any, ...]
    configuration: str

    @classmethod
    def of(cls, model: Any) -> ModelState | None:
        """Return the state of a model; None of none."""
        from harness.models.identity import tensor_fingerprints

        if model is None:
            return None
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        configs = [getattr(model, name, None) for name in ("config", "generation_config")]
        return cls(
            tensor_fingerprints(model),
            tuple((f"{name} {tensor.requires_grad} {tensor.device}", tensor.data_ptr()) for name, tensor in named),
            tuple((name, id(module), _of_module(module)) for name, module in model.named_modules()),
            repr([None if config is None else config.to_dict() for config in configs]),
        )


def _of_module(module: Any) -> tuple[Any, ...]:
    """Return the class, the hooks, the functions put on it and the plain values of a module."""
    own = vars(module)
    hooks = tuple((name, tuple(map(id, part.values()))) for name, part in own.items() if "_hooks" in name and part)
    put_on = tuple((name, id(value)) for name, value in own.items() if callable(value))
    plain = tuple((name, value) for name, value in own.items() if isinstance(value, str | int | float | None))
    return (type(module), hooks, put_on, plain)


class CodeState:
    """The functions of the classes that an LM is made of, and of the modules these stand in."""

    def __init__(self, places: Mapping[str, Any]) -> None:
        """Note what functions are in ``places``: classes, modules, and dictionaries of hooks, by name."""
        self._before = {name: (place, dict(_functions(place))) for name, place in places.items()}

    @classmethod
    def of(cls, lm: Any) -> CodeState:
        """Return the state of the code of ``lm``."""
        import torch

        parts = [lm, lm.tokenizer, *(lm.model.modules() if lm.model is not None else ())]
        kinds = {kind for part in parts for kind in type(part).__mro__} - {object}
        modules = {
            name: sys.modules[name] for name in sorted({kind.__module__ for kind in kinds}) if name in sys.modules
        }
        hooks = {
            f"torch ({n})": d
            for n, d in vars(torch.nn.modules.module).items()
            if n.startswith("_global_") and isinstance(d, dict)
        }
        return cls({**{f"{kind.__module__}.{kind.__qualname__}": kind for kind in kinds}, **modules, **hooks})

    def put_back(self) -> list[str]:
        """Undo what was replaced since, added to a class or hooked to all modules; return where that was."""
        changed = []
        for name, (place, before) in self._before.items():
            now = dict(_functions(place))
            replaced = {key: value for key, value in before.items() if now.get(key) is not value}
            added = now.keys() - before.keys() if isinstance(place, type | dict) else set()
            for key, value in replaced.items():
                _put(place, key, value)
            for key in added:
                _drop(place, key)
            if replaced or added:
                changed.append(name)
        return changed


def _functions(place: Any) -> Iterator[tuple[Any, Any]]:
    own = place if isinstance(place, dict) else vars(place)
    for name, value in list(own.items()):
        if isinstance(place, dict) or callable(value) or isinstance(value, property | classmethod | staticmethod):
            yield name, value


def _put(place: Any, name: Any, value: Any) -> None:
    if isinstance(place, dict):
        place[name] = value
    else:
        setattr(place, name, value)


def _drop(place: Any, name: Any) -> None:
    if isinstance(place, dict):
        del place[name]
    else:
        delattr(place, name)


def _probe_logits(model: Any, tokenizer: Any) -> tuple[int, ...] | None:
    import torch

    from harness.models.identity import fingerprint_of

    ids = tokenizer.encode(PROBE_TEXT, add_special_tokens=False) if tokenizer is not None else []
    rows = model.get_input_embeddings().weight.shape[0] if hasattr(model, "get_input_embeddings") else 0
    ids = [token for token in ids if token < rows]
    if not ids:
        return None
    with torch.no_grad():
        rows = torch.tensor([ids], device=model.device)
        labels = {"labels": rows} if getattr(model.config, "is_encoder_decoder", False) else {}
        out = model(rows, **labels)
        found = getattr(out, "logits", None)  # which a model without a head has none of
        return fingerprint_of(out.last_hidden_state if found is None else found)
