"""What the output head reads, of any text, kept by text, model and code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.folders import cache_folder, write_atomic
from harness.models.head import ENOUGH_ROWS, Head
from harness.models.identity import fingerprint_of, tensor_fingerprints
from harness.models.refused import Refused
from harness.models.tree.fitness import LOW_PRECISION_TOLERANCE, TOLERANCE
from harness.names import printable
from harness.progress import bar, say

if TYPE_CHECKING:
    from harness.models.causal import CausalLM
Tensor = torch.Tensor
# Logits that are held at once, and bytes that one pass may add to the cache.
MOST_LOGITS, MOST_CACHED_BYTES = 1 << 24, 2 << 30
PROBE_TOKENS = 32
# One row of text: hidden (n, D), and log_total, target_logit, best_word (n,) of its counted positions.
Piece = dict[str, Tensor]


class Frozen:
    """A model that is only read: hidden states before its output head, and the word logits it makes of them.

    Raises:
        HarnessError: its output head cannot be found.
    """

    def __init__(self, lm: CausalLM) -> None:
        self.lm = lm
        try:
            self.head = Head(lm.model, lm._autocast)
        except Refused as refused:
            raise _unusable(refused) from refused

    @property
    def width(self) -> int:
        """The width D of the hidden states."""
        read = getattr(self.head.module, "in_features", None)
        return int(self.lm.model.config.get_text_config().hidden_size if read is None else read)

    def hidden(self, token_ids: Sequence[int]) -> Tensor:
        """Return the hidden states (T, D) of a sequence, where the model is.

        Alone: beside others they would differ in the last digits by what these are.
        """
        with torch.no_grad(), self._taking() as taken:
            self.lm._model_call(torch.tensor([list(token_ids)], device=self.lm.device))
        if len(taken) != 1:
            raise _unusable(f"it is called {len(taken)} times in a forward pass")
        return taken[0][0]

    def learn_finish(self, token_ids: Sequence[int]) -> None:
        """Find out, on a few tokens, what the model does to the head's output; without it ``summary`` is of raw logits."""
        ids = list(token_ids[:PROBE_TOKENS])
        tolerance = TOLERANCE.get(self.lm.model.dtype, LOW_PRECISION_TOLERANCE)
        try:
            with torch.no_grad(), self.head.taking(torch.arange(len(ids)), pass_on=len(ids)):
                logits = self.lm._model_call(torch.tensor([ids], device=self.lm.device))[0]
            self.head.learn_finish(self.head.taken(), logits, tolerance)
        except Refused as refused:
            raise _unusable(refused) from refused

    def summary(self, hidden: Tensor, targets: Tensor) -> Piece:
        """Return what is kept of positions: hidden states (n, D), and three numbers of their word logits.

        Args:
            hidden: (n, D); targets: (n,), a word's id or a tool's number.
        """
        columns: list[Tensor] = []
        size = len(self.lm.model.get_input_embeddings().weight)
        step = max(16, min(ENOUGH_ROWS, MOST_LOGITS // size))
        for part, due in zip(hidden.split(step), targets.to(hidden.device).split(step), strict=True):
            logits = self.head.logits(part)
            best = logits.amax(-1)
            word = logits.gather(-1, due.clamp_min(0)[:, None])[:, 0]
            total = best + logits.sub_(best[:, None]).exp_().sum(-1).log()
            columns.append(torch.stack([total, torch.where(due >= 0, word, 0.0), best]))
        log_total, target_logit, best_word = torch.cat(columns, -1).float().cpu() if columns else torch.zeros(3, 0)
        if not bool(torch.isfinite(log_total).all()):
            raise HarnessError("the model's logits are NaN or infinite; load it with dtype=float32")
        return {
            "hidden": hidden.float().cpu(), "log_total": log_total.clone(), "target_logit": target_logit.clone(),
            "best_word": best_word.clone(),
        }  # fmt: skip

    def digest(self) -> str:
        """Return the SHA-256 of all that decides the states: tensors, configuration, where and by what they are computed."""
        model = self.lm.model
        known = {
            "tensors": sorted(_fingerprints(model).items()),
            "class": type(model).__name__,
            "config": json.loads(model.config.to_json_string(use_diff=False)),
            "adapters": str(getattr(model, "peft_config", None)),
            "attention": model.config._attn_implementation,
            "dtype": [str(model.dtype), str(self.lm.mixed_precision_dtype)],
            "device": self.lm.device.type,
            "versions": [version("torch"), version("transformers")],
        }
        # Where the model was loaded from does not matter.
        known["config"].pop("_name_or_path", None)
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()

    @contextmanager
    def _taking(self) -> Iterator[list[Tensor]]:
        """Within it forward passes add what their head is given to a list; the head itself gets one position per row."""
        taken: list[Tensor] = []

        def keep(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            if inputs[0].dim() != 3:
                raise _unusable("it is called in a way of its own")
            taken.append(inputs[0])
            return (inputs[0][:, :1], *inputs[1:])

        handle = self.head.module.register_forward_pre_hook(keep)
        try:
            yield taken
        finally:
            handle.remove()


class _Store:
    """Rows' states as files in the cache folder, one a row; what is damaged counts as not there."""

    def __init__(self, model_digest: str) -> None:
        self.folder = cache_folder() / "tool_tokens" / model_digest[:32]
        self.room = MOST_CACHED_BYTES

    def path(self, key: str) -> Path:
        """Return the file of a row."""
        return self.folder / f"{key}.safetensors"

    def load(self, key: str, count: int) -> Piece | None:
        """Return the states of a row with ``count`` positions, None where they are not there whole."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                piece = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                known = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError, KeyError):
            return None
        is_whole = piece.keys() == {"hidden", "log_total", "target_logit", "best_word"} and known == _sha256(piece)
        return piece if is_whole and all(len(tensor) == count for tensor in piece.values()) else None

    def save(self, key: str, piece: Piece) -> None:
        """Keep the states of a row, unless this pass has kept enough."""
        from safetensors.torch import save

        size = sum(tensor.nbytes for tensor in piece.values())
        if 0 <= self.room < size:
            say(f"the cache takes {MOST_CACHED_BYTES >> 30} GB of one pass; the states of the other rows are not kept")
            self.room = -1
        if self.room < 0:
            return
        try:
            write_atomic(self.path(key), save(piece, metadata={"sha256": _sha256(piece)}))
            self.room -= size
        except OSError as error:  # what cannot be kept costs time, nothing else
            say(f"states of rows are not kept: {printable(error)}")
            self.room = -1


def _run(frozen: Frozen, ids: list[list[int]], numbers: list[int], finish: Callable[[int, Tensor], None]) -> None:
    """Give ``finish`` the hidden states (T, D) of rows by number, the longest first."""
    if not numbers:
        return
    numbers = sorted(numbers, key=lambda number: -len(ids[number]))
    frozen.learn_finish(ids[numbers[0]])
    with bar(len(numbers), "Reading texts", unit="text") as progress:
        for number in numbers:
            finish(number, frozen.hidden(ids[number]))
            progress.update(1)


def _fingerprints(model: Any) -> dict[str, tuple[int, ...]]:
    """Return fingerprints of all tensors, with the scales that quantised weights carry beside them."""
    found = tensor_fingerprints(model)
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        scales = dict(state.as_dict(packed=False)) if state is not None else {}
        scales["SCB"] = getattr(parameter, "SCB", None)
        found |= {f"{name}/{key}": fingerprint_of(value) for key, value in scales.items() if isinstance(value, Tensor)}
    return found


def _sha256(piece: Piece) -> str:
    total = hashlib.sha256()
    for name in sorted(piece):
        total.update(f"{name}{tuple(piece[name].shape)}{piece[name].dtype}".encode())
        total.update(piece[name].contiguous().numpy().tobytes())
    return total.hexdigest()


def _unusable(reason: object) -> HarnessError:
    return HarnessError(
        f"tool rows cannot be put beside the output head of this model: {printable(reason)}; use a causal language "
        "model whose output head is one layer"
    )
