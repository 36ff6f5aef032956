"""The files of a model on the Hub, in the cache before anything is computed: which are needed, how large, is there room."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.errors import Failed
from harness.models.files import WEIGHT_SUFFIXES, WEIGHTS, code_elsewhere, read_weights
from harness.names import counted, printable
from harness.progress import say

if TYPE_CHECKING:
    from harness.models.source import ModelSource

# What a model or a tokenizer is read from beside weights; ``.py`` only where its code may run.
SMALL = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".vocab", ".bpe", ".yaml"})
# Folders of a repository that are read with it: parts of sentence-transformers, templates of a tokenizer.
BESIDE = re.compile(r"\d+_\w+|additional_chat_templates")
SHARDS = {"model.safetensors.index.json": re.compile(r"model-\d+-of-\d+\.safetensors"),
          "pytorch_model.bin.index.json": re.compile(r"pytorch_model-\d+-of-\d+\.bin")}  # fmt: skip
# Room that is left beside a download: what is unpacked, indexed and written next to it.
SPARE_BYTES = 1 << 28
TELL_BYTES = 10_000_000


class NoRoom(Failed):
    """What is missing does not fit on the disk."""


@dataclass(frozen=True)
class Place:
    """What is needed of one repository.

    Attributes:
        weights: whether they are; otherwise a tokenizer or code alone.
        code: whether its Python files may run.
        gguf_file: the one file of weights that is needed; None where transformers chooses.
    """

    name: str
    revision: str | None = None
    subfolder: str | None = None
    weights: bool = True
    code: bool = False
    gguf_file: str | None = None


def places_of(source: ModelSource, *, has_weights: bool) -> list[Place]:
    """Return the repositories on the Hub that a source names: the model's, its tokenizer's, its adapter's; none for folders."""
    code = source.trust_remote_code
    places = []
    if not source.is_local:
        places.append(Place(source.location, source.revision, source.subfolder, has_weights, code, source.gguf_file))
    if source.tokenizer and not Path(source.tokenizer).is_dir():
        places.append(Place(source.tokenizer, source.revision, weights=False, code=code))
    if source.peft and has_weights and not Path(source.peft).is_dir():
        places.append(Place(source.peft))
    return places


def fetch(place: Place) -> int:
    """Have all files of a place in the Hub's cache, and return how many bytes they are; a second call downloads nothing.

    What a call that was stopped left is used. Where the Hub is off or does not answer, the cache has to have them.

    Raises:
        NoRoom: they do not fit.
        HarnessError: the cache lacks one, and the Hub is off.
        OSError: as ``huggingface_hub``, of what it says: no such repository, no access, no connection.
    """
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        return _in_cache(place)
    from huggingface_hub import HfApi

    info = HfApi().model_info(place.name, revision=place.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    wanted = chosen(place, sizes)
    absent = [name for name in wanted if not _is_cached(place.name, name, info.sha)]
    if absent:
        _make_sure_of_room(place, {name: sizes[name] for name in absent}, Path(constants.HF_HUB_CACHE))
    snapshot_download(place.name, revision=place.revision, allow_patterns=[_literally(name) for name in wanted])
    return sum(sizes[name] for name in wanted)


def fetch_code_elsewhere(source: ModelSource) -> int:
    """Have the code that a model's configuration names in other repositories, where it may run; return its bytes."""
    if not source.trust_remote_code or source.is_local:
        return 0
    named = code_elsewhere(source.folder / "config.json", source.folder / "tokenizer_config.json")
    return sum(fetch(Place(name, weights=False, code=True)) for name, _ in named if not Path(name).is_dir())


def chosen(place: Place, names: Sequence[str] | Mapping[str, int]) -> list[str]:
    """Return which files of a repository are needed: what transformers reads of it, weights in the first form it looks for."""
    base = PurePosixPath(place.subfolder or ".")
    small = SMALL | ({".py"} if place.code else set())
    found = []
    for name in names:
        path = PurePosixPath(name)
        is_beside = path.parent != base and bool(BESIDE.fullmatch(str(path.parent)))
        # A repository's tokenizer may stand beside a subfolder, and its code always does.
        if path.suffix in small and (path.parent in (base, PurePosixPath(".")) or is_beside or path.suffix == ".py"):
            found.append(name)
    if not place.weights:
        return sorted(found)
    if place.gguf_file:
        return sorted([*found, str(base / place.gguf_file)])
    folders = {PurePosixPath(name).parent for name in names}
    beside = [folder for folder in folders if folder != base and re.fullmatch(r"\d+_\w+", str(folder))]
    found += [name for folder in (base, *beside) for name in _weights(folder, names)]
    return sorted(set(found))


def _weights(folder: PurePosixPath, names: Sequence[str] | Mapping[str, int]) -> list[str]:
    """Return the files of weights that transformers would read in a folder of a repository."""
    here = {PurePosixPath(name).name: name for name in names if PurePosixPath(name).parent == folder}
    adapter = [here[name] for name in ("adapter_model.safetensors", "adapter_model.bin") if name in here][:1]
    first = next((name for name in WEIGHTS if name in here), None)
    if first is None:
        return adapter or [name for file, name in here.items() if PurePosixPath(file).suffix in WEIGHT_SUFFIXES]
    shards = [name for file, name in here.items() if first in SHARDS and SHARDS[first].fullmatch(file)]
    return [here[first], *shards, *adapter]


def _in_cache(place: Place) -> int:
    """Return the bytes of what the cache has of a place, whole as far as its index of weights tells."""
    base = _cached_folder(place)
    weights, index = read_weights(base) if base and place.weights else ([], [])
    if base and place.gguf_file:
        weights, index = [path for path in [base / place.gguf_file] if path.is_file()], []
    if base is None:
        lacks: str | None = "any file of it"
    else:
        lacks = "its weights" if place.weights and not weights else next(_shards_not_in(base, index), None)
    if base is None or lacks:
        raise Failed(f"the cache lacks {printable(lacks)} ('{printable(place.name)}'), and the Hub is off")
    return sum(path.stat().st_size for path in base.rglob("*") if path.is_file())


def _cached_folder(place: Place) -> Path | None:
    """Return where the cache has the files of a place, None where it has none of those that every one has."""
    from huggingface_hub import try_to_load_from_cache

    below = f"{place.subfolder}/" if place.subfolder else ""
    known = ("config.json", "tokenizer_config.json", "tokenizer.json", "adapter_config.json", place.gguf_file)
    for name in filter(None, known):
        found = try_to_load_from_cache(place.name, below + name, revision=place.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _shards_not_in(folder: Path, index: Sequence[Path]) -> Iterator[str]:
    """Yield the files that an index names and that are not there."""
    for file in index:
        named = json.loads(file.read_text(encoding="utf-8")).get("weight_map") or {}
        yield from (name for name in sorted(set(map(str, named.values()))) if not (folder / name).is_file())


def _is_cached(name: str, file: str, commit: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, revision=commit), str)


def _make_sure_of_room(place: Place, absent: Mapping[str, int], cache: Path) -> None:
    """Say what is going to be downloaded, and raise where it does not fit."""
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    needed, free = sum(absent.values()), shutil.disk_usage(there).free
    if needed + SPARE_BYTES > free:
        raise NoRoom(
            f"'{printable(place.name)}' takes {size(needed)} more in {printable(cache)}, where {size(free)} are free"
        )
    if needed >= TELL_BYTES:
        files = counted(len(absent), "file")
        say(f"downloading {printable(place.name)}: {files}, {size(needed)}, to {printable(cache)} ({size(free)} free)")


def size(count: float) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _literally(name: str) -> str:
    """Return a pattern that fits one name alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)
