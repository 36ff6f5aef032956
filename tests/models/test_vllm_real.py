"""vLLM itself, where it is installed: the scores and texts of ``--model hf`` on the embedded model."""

from __future__ import annotations

import random
from typing import Any

import pytest
from lm_eval_answers import asking, some_text

from harness.models.finding import resolve
from harness.models.kinds import kind_of

pytest.importorskip("vllm")

pytestmark = pytest.mark.slow
WORDED = (" Twice as many as before", " Nobody could know", " A dozen and a half in all", " Nobody can tell", " A")


@pytest.fixture(scope="module")
def sides() -> tuple[Any, Any]:
    """The LM of vLLM, and of torch."""
    source = resolve({"max_length": 256, "kv_cache_memory_bytes": 1 << 28, "dtype": "float32"})
    plain = resolve({"max_length": 256, "dtype": "float32"})
    return kind_of("vllm").load(source, None, "auto"), kind_of("hf").load(plain, "cpu", "auto")


def test_scores_are_those_of_torch_wherever_blocks_end(sides: tuple[Any, Any]) -> None:
    """Contexts of every length beside a block of 32: each request within 0.001, each flag equal, 5 % computed again."""
    draw = random.Random(0)
    shots = some_text(draw, 30)
    contexts = [f"{shots} {'so ' * count}{some_text(draw, 3)} is" for count in range(34)]
    requests = asking("loglikelihood", *[(context, choice) for context in contexts for choice in WORDED])
    ours, theirs = (lm.loglikelihood(requests, True) for lm in sides)
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], abs=1e-3)
    assert [flag for _, flag in ours] == [flag for _, flag in theirs]
    assert sides[0].work.check_tokens and sides[0].work.pushed_tokens < 0.4 * sides[0].work.requested_tokens


def test_windows_texts_and_given_ids_are_those_of_torch(sides: tuple[Any, Any]) -> None:
    draw = random.Random(1)
    texts = asking("loglikelihood_rolling", *[(some_text(draw, size),) for size in (1, 40, 400)])
    ours, theirs = (lm.loglikelihood_rolling(texts, True) for lm in sides)
    assert ours == pytest.approx(theirs, abs=2e-2)
    prompts = asking(
        "generate_until",
        *[(f"{some_text(draw, 9)}\nQuestion: why?\nAnswer:", {"until": stops, "max_gen_toks": 24})
          for stops in (["\n"], [".", "the"], [])],
    )  # fmt: skip
    assert [lm.generate_until(prompts, True) for lm in sides[:1]] == [
        lm.generate_until(prompts, True) for lm in sides[1:]
    ]
