"""What the output head reads, of any text, kept by text, model and code."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.folders import cache_folder, write_atomic
from harness.methods import adapters
from harness.models.head import ENOUGH_ROWS, Head, reading
from harness.models.identity import digest_files, fingerprint_of, tensor_fingerprints
from harness.models.lm import is_as
from harness.models.refused import Refused
from harness.models.tree.fitness import LOW_PRECISION_TOLERANCE, TOLERANCE, has_hooks, has_other_forward
from harness.models.virtual_tokens import virtual_tokens
from harness.names import printable
from harness.own_code import code_of
from harness.progress import bar, say

if TYPE_CHECKING:
    from harness.models.causal import CausalLM
Tensor = torch.Tensor
# Logits that are held at once, and bytes that one pass may add to the cache.
MOST_LOGITS, MOST_CACHED_BYTES = 1 << 24, 2 << 30
PROBE_TOKENS = 32
# What is kept of n positions of a text, float32 on the CPU: hidden (n, D), what the output head is given; and of the
# logits it makes, (n,) each: log_total (log-sum-exp), target_logit (of the token that is due), best_word (the largest).
Piece = dict[str, Tensor]
NAMES = ("hidden", "log_total", "target_logit", "best_word")


def states_of(
    lm: CausalLM,
    texts: Sequence[str | Sequence[int]],
    *,
    positions: Sequence[Sequence[int]] | None = None,
    due: Sequence[Sequence[int]] | None = None,
    cache: bool = True,
) -> list[Piece]:
    """Return what the output head reads at positions of texts, each text in a forward pass of its own.

    ``piece["target_logit"] - piece["log_total"]`` is the log-probability (nats) of the token that is due after each position.

    Args:
        lm: the model; neither it nor its answers change.
        texts: text, encoded without special tokens, or ids.
        positions: for each text the places to keep, 0 to T - 1, in the order in which they come back; None keeps all.
        due: for each text the id that is due after each position that is kept, below 0 where none is; None: the text's next
            token, at its last position none.
        cache: keep the states in the cache folder, by text, model and code, and take those that are there; not where
            hooks, a replaced ``forward`` or a subclass's own step decide what the states are (``Frozen.is_known_by_digest``).

    Returns:
        A ``Piece`` a text. ``target_logit`` is of the token that is due, NaN where none is.

    Raises:
        HarnessError: a text has no tokens or more than fit the context, a position lies outside it, or the model's output
            head cannot be found or used apart.
    """
    frozen = Frozen(lm)
    ids = [_ids(lm, text, number) for number, text in enumerate(texts, start=1)]
    places = [_places(row, None if positions is None else positions[number]) for number, row in enumerate(ids)]
    store = Store(frozen.digest()) if cache and frozen.is_known_by_digest() else None
    targets = [
        torch.tensor([*row[1:], -1])[at] if due is None else torch.tensor(list(due[number]), dtype=torch.long)
        for number, (row, at) in enumerate(zip(ids, places, strict=True))
    ]
    keys = [
        text_key({"ids": row, "positions": at.tolist(), "due": wanted.tolist()})
        for row, at, wanted in zip(ids, places, targets, strict=True)
    ]
    found: dict[str, Piece] = {}
    waiting: dict[str, int] = {}  # equal texts are run once
    for number, key in enumerate(keys):
        piece = store.load(key, len(places[number])) if store and key not in found else None
        if piece is not None:
            found[key] = piece
        elif key not in found:
            waiting.setdefault(key, number)

    def finish(number: int, hidden: Tensor) -> None:
        piece = frozen.summary(hidden[places[number].to(hidden.device)], targets[number].clamp_min(0))
        piece["target_logit"][targets[number] < 0] = torch.nan
        found[keys[number]] = piece
        if store:
            store.save(keys[number], piece)

    read_each(frozen, ids, list(waiting.values()), finish)
    return [found[key] for key in keys]


class Frozen:
    """A model that is only read: hidden states before its output head, and the word logits it makes of them.

    Raises:
        HarnessError: its output head cannot be found, or reads more than the text.
    """

    def __init__(self, lm: CausalLM) -> None:
        self.lm, self._knows_finish = lm, False
        if virtual_tokens(lm.model):
            raise _unusable("its adapter puts virtual tokens before the text")
        try:
            self.head = Head(lm.model, lm.autocast)
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
        try:
            with torch.no_grad(), self._taking() as taken:
                self.lm.forward(torch.tensor([list(token_ids)]))
        except Refused as refused:
            raise _unusable(refused) from refused
        if len(taken) != 1:
            raise _unusable(f"it is called {len(taken)} times in a forward pass")
        return taken[0][0]

    def logits(self, token_ids: Sequence[int], positions: Sequence[int] | None = None) -> Tensor:
        """Return the logits (n, V) at n positions of a sequence (None: all), float32 or wider, where the model is.

        The head runs on these positions only. For more than fit the memory, see ``logits_in_parts``.
        """
        hidden = self.hidden(token_ids)
        if not self._knows_finish:
            self.learn_finish(token_ids)
        rows = hidden if positions is None else hidden[torch.tensor(list(positions), device=hidden.device)]
        return torch.cat([part for _, part in self.logits_in_parts(rows)])

    @torch.no_grad()
    def logits_in_parts(self, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, their logits (m, V)) of hidden states (n, D), few enough at a time; ``learn_finish`` comes first.

        The receiver may overwrite the logits.
        """
        size = len(self.lm.model.get_input_embeddings().weight)
        step = max(16, min(ENOUGH_ROWS, MOST_LOGITS // size))
        for start in range(0, len(hidden), step):
            rows = slice(start, min(start + step, len(hidden)))
            yield rows, self.head.logits(hidden[rows])

    @torch.no_grad()
    def learn_finish(self, token_ids: Sequence[int]) -> None:
        """Find out, on a few tokens, what the model does to the head's output; without it ``summary`` is of raw logits."""
        ids = list(token_ids[:PROBE_TOKENS])
        tolerance = TOLERANCE.get(self.lm.model.dtype, LOW_PRECISION_TOLERANCE)
        try:
            with self.head.taking(torch.arange(len(ids)), pass_on=len(ids)):
                logits = self.lm.forward(torch.tensor([ids]))[0]
            self.head.learn_finish(self.head.taken(), logits, tolerance)
            self._knows_finish = True
        except Refused as refused:
            raise _unusable(refused) from refused

    def summary(self, hidden: Tensor, targets: Tensor) -> Piece:
        """Return what is kept of n positions: hidden states, and three numbers of their logits (see ``Piece``).

        Args:
            hidden: (n, D).
            targets: (n,), the id that is due at each, 0 to V - 1.

        Raises:
            HarnessError: logits are NaN or infinite.
        """
        columns: list[Tensor] = []
        due = targets.to(hidden.device)
        for rows, logits in self.logits_in_parts(hidden):
            best = logits.amax(-1)
            word = logits.gather(-1, due[rows, None])[:, 0]
            total = best + logits.sub_(best[:, None]).exp_().sum(-1).log()
            columns.append(torch.stack([total, word, best]))
        log_total, target_logit, best_word = torch.cat(columns, -1).float().cpu() if columns else torch.zeros(3, 0)
        if not bool(torch.isfinite(log_total).all()):
            raise HarnessError("the model's logits are NaN or infinite; load it with dtype=float32")
        return {
            "hidden": hidden.float().cpu(), "log_total": log_total.clone(), "target_logit": target_logit.clone(),
            "best_word": best_word.clone(),
        }  # fmt: skip

    def is_known_by_digest(self) -> bool:
        """Return whether ``digest`` tells all: no part has hooks or another forward, and no step is a subclass's own.

        To be asked before anything is read: reading puts a hook on.
        """
        if any(has_hooks(part) or has_other_forward(part) for part in self.lm.model.modules()):
            return False
        from harness.models.causal import CausalLM

        return is_as(self.lm, CausalLM, "_model_call", "forward")

    def digest(self) -> str:
        """Return the SHA-256 of all that decides the states: tensors, configuration, code, where they are computed.

        What hooks and other functions do is not in it (see ``is_known_by_digest``).
        """
        model = self.lm.model
        known = {
            "tensors": sorted(_fingerprints(model).items()),
            "class": type(model).__name__,
            "code of others": _code_of_others(model),
            "config": json.loads(model.config.to_json_string(use_diff=False)),
            "adapters": _adapters(model),
            "attention": model.config._attn_implementation,
            "dtype": [str(model.dtype), str(self.lm.mixed_precision_dtype)],
            "device": self.lm.device.type,
            "versions": [version("torch"), version("transformers")],
            "code": code_of(("methods", "models")),
        }
        # Where the model was loaded from does not matter.
        known["config"].pop("_name_or_path", None)
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()

    @contextmanager
    def _taking(self) -> Iterator[list[Tensor]]:
        """Within it forward passes add what their head is given to a list; the head itself gets one position per row."""
        taken: list[Tensor] = []

        def keep(hidden: Tensor) -> Tensor:
            taken.append(hidden)
            return hidden[:, :1]

        with reading(self.head.module, keep):
            yield taken


class Store:
    """Texts' states as files in the cache folder, one a text; what is damaged counts as not there."""

    def __init__(self, model_digest: str) -> None:
        self.folder = cache_folder() / "hidden_states" / model_digest[:32]
        self.room = MOST_CACHED_BYTES

    def path(self, key: str) -> Path:
        """Return the file of a text."""
        return self.folder / f"{key}.safetensors"

    def load(self, key: str, count: int) -> Piece | None:
        """Return the states of a text with ``count`` positions, None where they are not there whole."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                piece = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                known = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError, KeyError):
            return None
        is_whole = piece.keys() == set(NAMES) and known == _sha256(piece)
        return piece if is_whole and all(len(tensor) == count for tensor in piece.values()) else None

    def save(self, key: str, piece: Piece) -> None:
        """Keep the states of a text, unless this pass has kept enough."""
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


def read_each(
    frozen: Frozen, ids: Sequence[Sequence[int]], numbers: Sequence[int], finish: Callable[[int, Tensor], None]
) -> None:
    """Give ``finish`` number and hidden states (T, D) of those texts of ``ids`` that ``numbers`` has, the longest first."""
    if not numbers:
        return
    numbers = sorted(numbers, key=lambda number: -len(ids[number]))
    frozen.learn_finish(ids[numbers[0]])
    with bar(len(numbers), "Reading texts", unit="text") as progress:
        for number in numbers:
            finish(number, frozen.hidden(ids[number]))
            progress.update(1)


def text_key(content: object) -> str:
    """Return the digest by which a ``Store`` keeps what depends on ``content``, a JSON value that names what it holds.

    All share one store, so lists of numbers that mean different things must not look alike.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def _ids(lm: CausalLM, text: str | Sequence[int], number: int) -> list[int]:
    ids = lm.tokenizer.encode(text, add_special_tokens=False) if isinstance(text, str) else list(text)
    if not ids or len(ids) > lm.max_length:
        raise HarnessError(
            f"text {number} has {len(ids)} tokens, where 1 to {lm.max_length} fit the model's context; cut it or leave it out"
        )
    return ids


def _places(ids: Sequence[int], positions: Sequence[int] | None) -> Tensor:
    at = torch.arange(len(ids)) if positions is None else torch.tensor(list(positions), dtype=torch.long)
    if len(at) and not 0 <= int(at.min()) <= int(at.max()) < len(ids):
        raise HarnessError(f"a position of {at.tolist()} lies outside a text of {len(ids)} tokens; the first is 0")
    return at


def _adapters(model: Any) -> Any:
    """Return what decides what adapters do: their configurations, and which one is on."""
    known = {name: config.to_dict() for name, config in getattr(model, "peft_config", {}).items()}
    for config in known.values():
        # Sets come in another order in each process, and where a base was loaded from does not matter.
        config.update({key: sorted(value) for key, value in config.items() if isinstance(value, set)})
        config.pop("base_model_name_or_path", None)
        config.pop("inference_mode", None)
    return [known, str(getattr(model, "active_adapter", None)), adapters.are_off(model)] if known else None


def _fingerprints(model: Any) -> dict[str, tuple[int, ...]]:
    """Return fingerprints of all tensors, with the scales that quantised weights carry beside them."""
    found = tensor_fingerprints(model)
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        scales = dict(state.as_dict(packed=False)) if state is not None else {}
        scales["SCB"] = getattr(parameter, "SCB", None)
        found |= {f"{name}/{key}": fingerprint_of(value) for key, value in scales.items() if isinstance(value, Tensor)}
    return found


def _code_of_others(model: torch.nn.Module) -> list[str]:
    """Return the digests of the Python files that the model's own folder brought (``trust_remote_code``)."""
    names = {type(part).__module__ for part in model.modules()}
    files = {
        str(getattr(sys.modules[name], "__file__", "")) for name in names if name.startswith("transformers_modules.")
    }
    folders = sorted({Path(file).parent for file in files if file})
    return [digest_files(list(folder.rglob("*.py")), below=folder) for folder in folders]


def _sha256(piece: Piece) -> str:
    total = hashlib.sha256()
    for name in sorted(piece):
        total.update(f"{name}{tuple(piece[name].shape)}{piece[name].dtype}".encode())
        total.update(piece[name].contiguous().numpy().tobytes())
    return total.hexdigest()


def _unusable(reason: object) -> HarnessError:
    return HarnessError(
        f"what the output head of this model reads cannot be taken: {printable(reason)}; use a causal language model whose "
        "output head is one layer"
    )
