"""What decides a cell's result and is quick to know, without torch: whether what is done is what the file asks for now."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import plugins
from harness.methods import Baseline
from harness.methods.options import build, pick, resolved_options
from harness.models import files
from harness.models.default_model import embedded
from harness.models.identity import digest_files
from harness.plugins import Plugin
from harness.run.identity import plugin_part
from harness.run.run import Run
from harness.run.surroundings import undisturbed
from harness.sweeps.baselines import what_decides
from harness.sweeps.cell import Cell

# Of a model's folder, besides its weights and configuration: what its tokenizer, template and generation are read from.
_READ = (".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")


def identity(cell: Cell, folder: Path) -> str:
    """Return the digest of what decides the result of a cell, as far as it can be known without reading the model.

    That is the plugin's version and code, every option, the content of files that options, model and tasks name, quantization,
    settings and seeds; and neither software nor machine, so that what was done on another machine is done here too. Of a
    model on the Hub it is the commit in the cache, None where there is none.

    Args:
        cell: a cell of the sweep.
        folder: where its paths begin.

    Raises:
        HarnessError: its plugin, method or options are not there any more.
    """
    run = cell.run
    words = [word for word in what_decides(run) if word]
    parts = [words, _method(run, folder), _model(run, folder), _named_tasks(run, folder)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _method(run: Run, folder: Path) -> Any:
    """Return plugin and method with every option, and the content of what the options name."""
    if run.plugin is None or run.method == Baseline.name:
        return None
    plugin = _plugin(run.plugin)
    kind = pick(plugin.methods, run.method, plugin=plugin.name)
    method = build(kind, run.method_args)
    options = resolved_options(method)
    named = {name: _content(folder, value) for name, value in options.items() if isinstance(value, str)}
    return [plugin_part(plugin, method).model_dump(), method.name, options, {n: v for n, v in named.items() if v}]


@functools.cache
def _plugin(name: str) -> Plugin:
    with undisturbed("a plugin", all_of_it=False):
        return plugins.load(name)


def _model(run: Run, folder: Path) -> Any:
    """Return what the model and what is loaded with it are, by their files or their commits."""
    pretrained = run.model_args.get("pretrained")
    places = {name: run.model_args.get(name) for name in ("tokenizer", "peft")}
    own: str | None
    if pretrained is None:
        gguf, unpacked = embedded()
        own = _digest((gguf,)) if not (unpacked / "config.json").is_file() else _digest(tuple(_of_model(unpacked)))
    else:
        own = _of_place(str(pretrained), run, folder)
    return [own, {name: _of_place(str(place), run, folder) for name, place in places.items() if place}]


def _of_place(text: str, run: Run, folder: Path) -> str | None:
    """Return the digest of a model's files here, or the commit that the Hub's cache has of it."""
    path = folder / Path(text).expanduser()
    if path.is_dir():
        path = path / str(run.model_args.get("subfolder") or "")
        return _digest(tuple(_of_model(path))) if path.is_dir() else None
    if path.is_file():
        return _digest((path,))
    return _commit(text, str(run.model_args.get("revision") or "main"))


def _of_model(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that decide what a model in it answers."""
    weights, _ = files.read_weights(folder)
    besides = (path for path in folder.iterdir() if path.suffix in _READ and path.is_file())
    yield from sorted({*weights, *besides})


def _commit(name: str, revision: str) -> str | None:
    """Return the commit that a revision of a repository is in the Hub's cache, which is not asked for news."""
    from huggingface_hub.constants import HF_HUB_CACHE

    reference = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / revision
    try:
        return reference.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return revision if len(revision) == 40 else None


def _named_tasks(run: Run, folder: Path) -> dict[str, str | None]:
    """Return the content of task files that are named by their paths, and of folders of the user's own."""
    files_named = (name for name in run.tasks if os.sep in name or name.endswith((".yaml", ".yml")))
    return {name: _content(folder, name) for name in (*files_named, *run.include_path)}


def _content(folder: Path, text: str) -> str | None:
    """Return the digest of the file or folder that a text names, None where it names none."""
    if not text or "\0" in text or len(text) > 4096:
        return None
    path = folder / Path(text).expanduser()
    try:
        if path.is_file():
            return _digest((path,))
        if path.is_dir() and path != folder:
            return _digest(tuple(sorted(one for one in path.rglob("*") if one.is_file())), path)
    except OSError:
        return None
    return None


def _digest(paths: tuple[Path, ...], below: Path | None = None) -> str:
    """Return the digest of files, read once as long as none of them changes."""
    states = tuple((str(path), *_state(path)) for path in paths)
    return _known(states, None if below is None else str(below))


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@functools.lru_cache(maxsize=4096)
def _known(states: tuple[Any, ...], below: str | None) -> str:
    return digest_files([Path(state[0]) for state in states], below=None if below is None else Path(below))
