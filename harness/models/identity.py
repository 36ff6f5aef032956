"""What a model and a tokenizer are, as digests and counts, so that a change is seen and a record can name it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.folders import cache_folder, write_atomic

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

CHUNK_BYTES = 1 << 24


def digest_files(files: list[Path], *, below: Path | None = None) -> str:
    """Return the SHA-256 over names and contents; a digest is remembered by path, size and times of change.

    Args:
        files: existing files; their order does not matter.
        below: a folder they lie in, which tells files of one name apart by their path; without it the name is all that
            counts.
    """
    memory_path = cache_folder() / "digests.json"
    memory = _read_json(memory_path)
    total, is_new = hashlib.sha256(), False
    names = {file: file.name if below is None else file.relative_to(below).as_posix() for file in files}
    for file in sorted(files, key=lambda path: names[path]):
        status = file.stat()
        # Digested, since a path can hold what nobody should find in a cache.
        # The time of the last change of any kind cannot be set back, as that of the content can.
        named = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
        key = hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()
        if key not in memory:
            memory[key], is_new = sha256_of(file), True
        total.update(f"{names[file]}\0{memory[key]}\n".encode("utf-8", "surrogateescape"))
    if is_new:
        with suppress(OSError):  # a memory that cannot be kept costs time, nothing else
            write_atomic(memory_path, json.dumps(memory, indent=0))
    return total.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of everything that decides how text becomes ids and ids text: rules, vocabulary, special tokens.

    One that was digested before is known by its rules, which take a tenth of the time to read.
    """
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = None if backend is None else backend.to_str()
    if (
        getattr(tokenizer.get_vocab, "__func__", None) is not TokenizersBackend.get_vocab
    ):  # it may say what rules do not
        return _tokenizer_digest(tokenizer, rules)
    known = json.dumps([_special(tokenizer), _settings(tokenizer, is_slow=backend is None)], sort_keys=True)
    key = hashlib.sha256(f"{known}\0{rules}".encode("utf-8", "surrogateescape")).digest()
    if key not in _DIGESTS:
        _DIGESTS[key] = _tokenizer_digest(tokenizer, rules)
    return _DIGESTS[key]


_DIGESTS: dict[bytes, str] = {}


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase, backend: str | None) -> str:
    """Return the digest of a tokenizer whose rules are ``backend``, as JSON; None of one that has no such rules."""
    rules: Any = json.loads(backend) if backend is not None else {"class": type(tokenizer).__name__}
    for state in ("padding", "truncation"):  # set and unset by every batch call
        rules.pop(state, None)
    rules["vocabulary"] = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    rules["special"] = _special(tokenizer)
    rules |= _settings(tokenizer, is_slow=backend is None)
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    # The padding token is left out: wrapping a model chooses one, and it changes no text's ids.
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name != "pad_token"}


def chat_template_digest(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the SHA-256 of a tokenizer's chat template, or of all it has by their names; None where it has none."""
    template = getattr(tokenizer, "chat_template", None)
    return None if template is None else hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def _settings(tokenizer: PreTrainedTokenizerBase, *, is_slow: bool) -> dict[str, Any]:
    """Return what else decides, where it is not as it is with nearly every tokenizer: most then keep their digest."""
    found: dict[str, Any] = {}
    if getattr(tokenizer, "split_special_tokens", False):
        found["split_special_tokens"] = True
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    kind = type(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)).__name__
    if getattr(tokenizer, "clean_up_tokenization_spaces", False) and (kind != "BPE" or forced):
        found["cleans_up"] = True
    if is_slow:  # merges and scores stand in its files alone
        named = [getattr(tokenizer, name, None) for name in getattr(tokenizer, "vocab_files_names", {})]
        paths = [Path(name) for name in named if isinstance(name, str) and Path(name).is_file()]
        found["files"] = sorted(f"{path.name} {sha256_of(path)}" for path in paths)
    return found


def tensor_fingerprints(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return, for each parameter and buffer, numbers that change when any of its bits does (no cryptography).

    Computed where the tensor lives, in pieces: two sums over its raw words, one of them weighted by position.
    """
    return {name: fingerprint_of(tensor) for name, tensor in _tensors(model)}


def bits_per_weight(model: torch.nn.Module) -> float:
    """Return the bits that one weight takes in memory, measured: what "4-bit" really is, embeddings included."""
    stored_bytes, weights = 0, 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        stored_bytes += parameter.numel() * parameter.element_size()
        weights += parameter.numel() if state is None else int(_product(state.shape))
        if state is not None:
            stored_bytes += sum(
                t.numel() * t.element_size() for t in state.as_dict(packed=False).values() if hasattr(t, "numel")
            )
        scales = getattr(parameter, "SCB", None)
        if scales is not None:
            stored_bytes += scales.numel() * scales.element_size()
    return 8 * stored_bytes / weights if weights else 0.0


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of weights; a packed 4-bit matrix counts as the matrix it stands for."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else int(_product(state.shape))
    return total


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def fingerprint_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor and two sums over its raw words; see ``tensor_fingerprints``."""
    import torch

    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return tuple(tensor.shape)
    raw = tensor.detach().contiguous().reshape(-1).view(words[tensor.element_size()])
    plain, weighted = 0, 0
    for number, piece in enumerate(raw.split(CHUNK_BYTES)):
        wide = piece.to(torch.int64)
        positions = torch.arange(1, len(wide) + 1, device=wide.device)
        plain += int(wide.sum())
        weighted += (number + 1) * int((wide * positions).sum())
    return (*tensor.shape, plain, weighted)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, str]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _product(shape: Any) -> int:
    total = 1
    for size in shape:
        total *= int(size)
    return total
