"""The contextual token in the embedded default model, against states that another program made (`make test-slow`)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

STATES = Path(__file__).parents[1] / "contextual_embeddings" / "data" / "reference_decoder_states.jsonl"


def test_a_given_contextual_vector_leads_to_the_given_states() -> None:
    """Property 5: numbers to 2e-3, lengths to 1e-3 of themselves."""
    from harness.models.finding import resolve
    from harness.models.loading import load_lm
    from harness_contextual_embeddings.embedder import Embedder
    from harness_contextual_embeddings.layout import build

    lm = load_lm(resolve({"dtype": "float32"}), device="cpu", batch_size=1)
    embedder = Embedder(lm.model)
    vector = torch.tensor([[0.1 * math.sin(0.01 * k) for k in range(576)]])
    for line in STATES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        layout = build(
            row["bos"], row["instruction_ids"], row["text_ids"], row["eos"], max_length=512, context_position="text"
        )
        assert (layout.context_index, len(layout)) == (row["context_position"], row["length"])
        without = build(
            row["bos"], row["instruction_ids"], row["text_ids"], row["eos"], max_length=512, context_position=None
        )
        with torch.no_grad():
            [states], [plain] = embedder.states([layout], vector), embedder.states([without])
        found = {"h_context": states[layout.context_index], "h_eos": states[-1], "without_context_h_eos": plain[-1]}
        for name, state in found.items():
            assert state[:8].tolist() == pytest.approx(row[f"{name}_first8"], abs=2e-3)
            assert state.norm().item() == pytest.approx(row[f"{name}_norm"], rel=1e-3)
