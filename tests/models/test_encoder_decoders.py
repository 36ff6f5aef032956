"""Encoder-decoders: asked on lm-eval's way, with lm-eval's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval_answers import asking
from small_runs import Command
from tiny_models import build_tokenizer
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from harness import HarnessError
from harness.models.finding import resolve
from harness.models.loading import load_lm

PAIRS = [
    ("The clockmaker's shop stood", " between a bakery and a bank"),
    ("Which is right?", " None"),
    ("", "None of them"),
]
ENDS = {"pad_token_id": 1, "eos_token_id": 0, "decoder_start_token_id": 1, "bos_token_id": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny T5 and a tiny BART, whose weights give every token its say."""
    tokenizer, folder = build_tokenizer(), tmp_path_factory.mktemp("encoder-decoders")
    t5 = T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **ENDS)
    layers: dict[str, Any] = {
        f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")
    }
    bart = BartConfig(vocab_size=400, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128,
                      forced_eos_token_id=None, **layers, **ENDS)  # fmt: skip
    for name, kind, config in (("t5", T5ForConditionalGeneration, t5), ("bart", BartForConditionalGeneration, bart)):
        torch.manual_seed(0)
        model = kind(config)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in ("t5", "bart")}


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_answers_are_those_of_lm_eval(folders: dict[str, Path], name: str) -> None:
    lm = load_lm(resolve({"pretrained": str(folders[name])}), device="cpu", batch_size=1)
    right = HFLM(pretrained=str(folders[name]), device="cpu", batch_size=1)
    assert right.backend == lm.backend == "seq2seq"
    asked = asking("loglikelihood", *PAIRS)
    for ours, theirs in zip(lm.loglikelihood(asked), right.loglikelihood(asked), strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-3) and ours[1] == theirs[1]
    rolling = asking("loglikelihood_rolling", ("It was never quiet, and so on",))
    assert lm.loglikelihood_rolling(rolling) == pytest.approx(right.loglikelihood_rolling(rolling), abs=1e-3)
    written = asking("generate_until", *[(text, {"until": ["zz"], "max_gen_toks": 5}) for text, _ in PAIRS[:2]])
    for text, longer, request in zip(lm.generate_until(written), right.generate_until(written), written, strict=True):
        ids = lm.tokenizer(request.args[0], return_tensors="pt").input_ids
        made = lm.model.generate(input_ids=ids, do_sample=False, max_new_tokens=5)[0, 1:]
        # lm-eval allows as many tokens more as the prompt has, and shows the token that the decoder begins with.
        assert text == lm.tokenizer.decode(made, skip_special_tokens=True) and text in longer and len(made) == 5
    assert lm.work.reason == "it is an encoder-decoder" and lm.work.pushed_tokens > 0
    with pytest.raises(HarnessError, match="an encoder-decoder has no log-probabilities of a text's own tokens"):
        lm.token_loglikelihoods(asking("token_loglikelihoods", ("a", (5,))))


def test_a_task_is_asked_of_t5(folders: dict[str, Path], fresh: None, evaluate: Command, records: Any) -> None:
    outcome = evaluate(model=folders["t5"], tasks="colours,write_colours")
    assert outcome.code == 0, outcome.err
    assert len(records(Path("out"))) == 2
    assert outcome.err.count("scoring every request on its own, as lm-eval does, because it is an encoder-decoder") == 1


@pytest.mark.parametrize(
    ("backend", "words"),
    [("causal", "'t5' is an encoder-decoder; leave backend=causal out"), ("sequence", "is none of default")],
)
def test_a_backend_that_does_not_suit_is_refused(folders: dict[str, Path], backend: str, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        resolve({"pretrained": str(folders["t5"]), "backend": backend}).check()
    resolve({"pretrained": str(folders["t5"]), "backend": "seq2seq"}).check()
