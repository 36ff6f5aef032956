"""A tiny model, saved and loaded as a user would, and the shared tasks as lm-eval finds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tiny_models import SIZES
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import harness_tasks
from harness.tasks.texts import TEXTS

Evaluate = Callable[..., dict[str, Any]]


class TinyLM(HFLM):
    """lm-eval's own LM, which also answers ``tokenize``."""

    def tokenize(self, requests: list[Any]) -> list[list[int]]:
        return [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HARNESS_CUTE_FOLDER", raising=False)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 400 tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="session")
def tiny_lm(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> TinyLM:
    """A random Llama of two layers, 32 wide."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        **SIZES,
        max_position_embeddings=1024,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TinyLM(pretrained=str(folder), device="cpu", batch_size=32)


@pytest.fixture(scope="session")
def task_folder() -> Path:
    """The folder that the plugin names."""
    [folder] = harness_tasks.harness_task_folders()
    return folder


@pytest.fixture(scope="session")
def evaluate(task_folder: Path) -> Evaluate:
    """Run tasks of the plugin by name, with the metadata a user gives."""

    def run(lm: Any, *tasks: str, metadata: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        manager = TaskManager(include_path=str(task_folder), include_defaults=False, metadata=metadata or {})
        results: dict[str, Any] | None = lm_eval.simple_evaluate(
            lm, tasks=list(tasks), task_manager=manager, bootstrap_iters=100, **options
        )
        assert results is not None
        return results

    return run
