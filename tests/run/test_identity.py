"""What a model is called in caches and records: the commit on the Hub, and what else decides a method's result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness import HarnessError
from harness.methods import Baseline
from harness.models.finding import resolve
from harness.models.source import ModelSource
from harness.run.applying import work_folder
from harness.run.preparing import Chosen
from harness.run.run import Run

pytestmark = pytest.mark.usefixtures("fresh")

COMMITS = {"org/a": "a" * 40, "org/b": "b" * 40}


def folder_of(source: ModelSource) -> Path:
    """Return the folder of a method's work on a model."""
    return work_folder(Chosen(Run(tasks=()), None, Baseline(), source), device="cpu")


@pytest.fixture
def hub(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub cache, as downloads leave it, that holds one model under two names."""
    for name, commit in COMMITS.items():
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        shutil.copytree(tiny_model, folder / "snapshots" / commit)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_is_known_by_its_commit() -> None:
    sources = [resolve({"pretrained": name}) for name in COMMITS]
    assert [source.digest for source in sources] == list(COMMITS.values())
    folders = [folder_of(source) for source in sources]
    assert folders[0] != folders[1]


def test_another_tokenizer_in_the_same_place_is_another_work_folder(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(tiny_model, tmp_path / "model")
    source = ModelSource("model", str(tmp_path / "model"))
    before = folder_of(source)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_tokens(["clockmaker"])
    tokenizer.save_pretrained(tmp_path / "model")
    assert folder_of(source) != before


def test_a_name_that_is_nowhere_is_told() -> None:
    with pytest.raises(HarnessError, match="no usable configuration"):
        resolve({"pretrained": "org/nowhere"}).check()
