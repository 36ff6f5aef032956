"""What training on tokens reaches: the best that a head allows (`make test-slow`)."""

from __future__ import annotations

import pytest
import torch
from tiny_models import PARAGRAPH, build_model

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
