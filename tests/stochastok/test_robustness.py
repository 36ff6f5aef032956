"""The task ``tokenization_robustness``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness.run.evaluating import evaluate
from harness.run.run import Run
from harness_stochastok.tasks.robustness import PROPORTIONS, TokenizationRobustness

CONFIG = {"task": "tokenization_robustness", "metadata": {"version": 1.0, "seed": 0, "draws": 2}}


def task_for(tokenizer: Any) -> TokenizationRobustness:
    task = TokenizationRobustness(CONFIG)
    task.use_tokenizer(tokenizer)
    return task


def test_every_draw_spells_the_text_and_more_attempts_make_more_tokens(tokenizer: Any) -> None:
    task = task_for(tokenizer)
    for doc in task.test_docs()[:5]:
        requests = task.arguments(doc)
        assert len(requests) == 1 + 2 * (len(PROPORTIONS) - 1)
        assert {tokenizer.decode(ids) for _, ids in requests} == {doc["text"]}
        lengths = [len(ids) for _, ids in requests]
        assert lengths[0] == len(tokenizer.encode(doc["text"])) < lengths[3] < lengths[6]


def test_draws_depend_on_the_document_alone_not_on_the_limit(tokenizer: Any) -> None:
    first, second = task_for(tokenizer), task_for(tokenizer)
    assert second.arguments(second.test_docs()[3]) == first.arguments(first.test_docs()[3])
    assert len({tuple(ids) for _, ids in first.arguments(first.test_docs()[0])}) > 5


def test_bits_per_byte_by_hand(tokenizer: Any) -> None:
    task = task_for(tokenizer)
    doc = {"number": 0, "text": "abcd", "bytes": 4}
    answers = [[-math.log(2)] * 4, [-math.log(4)] * 4, [-math.log(4)] * 4, *[[-math.log(8)] * 4] * 4]
    scores = task.score(doc, answers)
    assert scores["bits_per_byte_p0"] == pytest.approx(1.0)
    assert scores["bits_per_byte_p0.1"] == pytest.approx(2.0)
    assert (scores["drop_p0.1"], scores["drop_p1"]) == (pytest.approx(1.0), pytest.approx(2.0))


def test_token_loglikelihoods_are_those_of_a_plain_forward_pass(tiny_model: Path) -> None:
    from lm_eval.api.instance import Instance

    lm: Any = load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=2)
    texts = ["The clock", "a", "Forty clocks ticked there, each a little ahead of its neighbour.", "none " * 150]
    requests = [Instance("token_loglikelihoods", {}, (text, lm.tokenizer.encode(text)), 0) for text in texts]
    for request, scores in zip(requests, lm.token_loglikelihoods(requests), strict=True):
        ids = request.args[1]
        assert len(scores) == len(ids)
        window = ids[: lm.max_length]
        row = torch.tensor([[lm.tokenizer.eos_token_id, *window][: len(window)]])
        logprobs = torch.log_softmax(lm.model(row).logits[0].float(), -1)
        expected = logprobs.gather(1, torch.tensor(window)[:, None])[:, 0].tolist()
        assert scores[: len(window)] == pytest.approx(expected, abs=1e-4)


def test_the_records_hold_all_metrics_and_the_same_values_with_fewer_documents(
    tiny_model: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"plugin": "stochastok", "method": "baseline", "output_path": tmp_path}
    model_args = {"pretrained": str(tiny_model)}
    records = evaluate(Run(tasks=("tokenization_robustness",), model_args=model_args, limit=3, **settings))
    values = {record.metric.name: record.value for record in records}
    assert set(values) == set(TokenizationRobustness.metrics)
    assert values["drop_p1"] == pytest.approx(values["bits_per_byte_p1"] - values["bits_per_byte_p0"])
    assert all(record.metric.higher_is_better is False and record.stderr for record in records)
