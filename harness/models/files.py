"""Which files of a model's folder decide its answers: those that transformers reads there, and the code that it may run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.models import sentence_files

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf")
# In the order in which transformers looks for them; it reads the first that is there.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER_CONFIG = "adapter_config.json"
GENERATION_CONFIG = "generation_config.json"
# What transformers writes into every generation configuration, whatever the model.
_SAYS_NOTHING = {"output_attentions": False, "output_hidden_states": False, "use_cache": True}
_OF_THE_WRITER = {"transformers_version", "_from_model_config"}


def weight_files(folder: Path) -> list[Path]:
    """Return all files of a folder that look like weights."""
    return sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())


def read_weights(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of weights that transformers reads in a folder, and the index that names them where there is one.

    What a training left beside them, such as its optimizer's state, is read by nobody. An adapter in the folder is.
    """
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    adapter = [path for path in weight_files(folder) if path.stem == "adapter_model"]
    adapter = adapter if (folder / ADAPTER_CONFIG).is_file() else []
    if found is None:
        return weight_files(folder), []
    if found.suffix != ".json":
        return [found, *adapter], []
    names = _object(found).get("weight_map")
    shards = {str(name) for name in names.values()} if isinstance(names, dict) else set()
    return [*_existing(folder, sorted(shards)), *adapter], [found]


def read_besides(folder: Path) -> list[Path]:
    """Return what transformers reads in a folder besides weights, their index, ``config.json`` and the tokenizer's files.

    Left out is a generation configuration that only repeats ``config.json``, as ``save_pretrained`` writes it: the model
    answers with it as it does without it.
    """
    others = _object(folder / "config.json").get("configuration_files")
    names = [str(name) for name in others if name != "config.json"] if isinstance(others, list) else []
    more = [GENERATION_CONFIG] if _decides(folder) else []
    return [*_existing(folder, [*names, ADAPTER_CONFIG, *more]), *sentence_files.own_files(folder)]


def code_files(folder: Path) -> list[Path]:
    """Return the Python files below a folder, which its model, tokenizer or generation may import."""
    return [path for path in folder.rglob("*.py") if path.is_file()]


def code_elsewhere(*configs: Path) -> list[tuple[str, str]]:
    """Return the places of code that configuration files name in other models' folders: the place, and a file there."""
    named = {reference for config in configs for reference in _references(_object(config).get("auto_map"))}
    places = [reference.split("--", 1) for reference in sorted(named) if "--" in reference]
    return [(place, f"{name.split('.')[0]}.py") for place, name in places]


def _references(auto_map: Any) -> Iterator[str]:
    if isinstance(auto_map, str):
        yield auto_map
    elif isinstance(auto_map, dict | list):
        for inner in auto_map.values() if isinstance(auto_map, dict) else auto_map:
            yield from _references(inner)


def _decides(folder: Path) -> bool:
    """Return whether the generation configuration says anything that ``config.json`` does not."""
    from transformers import GenerationConfig

    try:
        text = (folder / GENERATION_CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return (folder / GENERATION_CONFIG).is_file()
    said, config = _object(folder / GENERATION_CONFIG), _object(folder / "config.json")
    repeated = {name: config[name] for name in GenerationConfig().to_dict() if name in config}
    is_as_saved = text == json.dumps(said, indent=2, sort_keys=True) + "\n"
    return not is_as_saved or _telling(said) != _telling(repeated)


def _telling(said: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in said.items()
        if value is not None and name not in _OF_THE_WRITER and _SAYS_NOTHING.get(name) is not value
    }


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _existing(folder: Path, names: list[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]
