"""What training reaches: the best that a head allows, and a planted task. A minute or so (`make test-slow`)."""

from __future__ import annotations

import json
import random

import numpy
import pytest
import torch
from embedding_requests import embedded
from tiny_models import PARAGRAPH, build_encoder, build_model, build_tokenizer, build_wordpieces

from harness.methods import adapters, training
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness_contextual_embeddings import making
from harness_contextual_embeddings.lessons import TokenLesson
from harness_contextual_embeddings.losses import token_target_kl
from harness_contextual_embeddings.method import ContextualEmbeddings

pytestmark = pytest.mark.slow


def decoder(folder):
    return load_lm(resolve({"pretrained": str(folder)}), device="cpu", batch_size="auto")


@pytest.mark.parametrize("scale", [1.0, 25.0])
def test_tokens_of_one_batch_are_learned_as_far_as_the_head_allows(tmp_path, scale) -> None:
    """Property 19: within 0.05 of a free vector of the final norm's length."""
    lm = decoder(build_model(tmp_path / "decoder", hidden_size=64, intermediate_size=128, tie_word_embeddings=False))
    with torch.no_grad():
        lm.model.lm_head.weight.mul_(scale)
    texts = [line for line in PARAGRAPH.split(".") if line.strip()][:8]
    draws = torch.Generator().manual_seed(0)
    targets = [[(token, 0.25) for token in torch.randperm(400, generator=draws)[:4].tolist()] for _ in texts]
    made = making.make(ContextualEmbeddings(pooling="eos", rank=8, max_length=64), lm, seed=0)
    made.embedder.decoder = adapters.add_adapter(lm.model, rank=8, alpha=16, target_modules=["all-linear"], seed=0)
    lesson = TokenLesson(made.reader, "eos", texts, targets, batch_size=8, most_tokens=4096)
    log = training.train(
        made.embedder, lesson.batches(), steps=200, learning_rate=1e-2, warmup_steps=0, label="t", loss=lesson.loss
    )
    free = torch.randn(8, 64, generator=draws, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(400):
        unit = free / free.square().mean(-1, keepdim=True).sqrt()
        logits = unit @ made.embedder.causal.lm_head.weight.detach().T
        bound = torch.stack([token_target_kl(*pair) for pair in zip(logits, targets, strict=True)]).mean()
        optimizer.zero_grad()
        bound.backward()
        optimizer.step()
    assert log.losses[-1] < bound.item() + 0.05


def test_a_planted_token_is_found_by_the_whole_and_by_either_half(tmp_path) -> None:
    """Property 20: token 2 of 24 decides the label, all others are noise; nearest neighbours on new texts."""
    pieces, tokenizer, draws = build_wordpieces().get_vocab(), build_tokenizer(), random.Random(0)
    words = sorted(word for word in pieces if len(word) > 1 and word.isalpha())
    words = [word for word in words if len(tokenizer(f" {word}")["input_ids"]) == 1]  # one token for either model
    draws.shuffle(words)
    marks, noise = words[:4], words[4:]

    def text(label: int) -> str:
        return " " + " ".join([draws.choice(noise), marks[label], *(draws.choice(noise) for _ in range(22))])

    labels = [draws.randrange(4) for _ in range(3000)]
    file = tmp_path / "pairs.jsonl"
    rows = [{"query": text(label), "positive": text(label)} for label in labels]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lm = decoder(build_model(tmp_path / "decoder", hidden_size=64, intermediate_size=128))
    method = ContextualEmbeddings(
        encoder=str(build_encoder(tmp_path / "encoder")), train_file=file, steps=400, batch_size=16, rank=8,
        temperature=0.1, train_encoder=True, learning_rate=1e-3, projector_learning_rate=5e-3,
        encoder_learning_rate=3e-3,
    )  # fmt: skip
    lm = method.apply(lm, seed=0, workdir=tmp_path)
    [layout] = lm.reader.read([(text(0), None)])
    assert layout.text_end - layout.text_start == 24
    known, asked = ([(label, text(label)) for label in [0, 1, 2, 3] * 25] for _ in range(2))
    vectors = [embedded(lm, [text for _, text in part]) for part in (known, asked)]
    for half, least in ((slice(None), 0.95), (slice(0, 64), 0.7), (slice(64, None), 0.5)):
        near, far = (part[:, half] / numpy.linalg.norm(part[:, half], axis=1, keepdims=True) for part in vectors)
        found = (far @ near.T).argmax(1)
        right = sum(known[place][0] == label for place, (label, _) in zip(found, asked, strict=True)) / len(asked)
        assert right >= least, (half, right)
