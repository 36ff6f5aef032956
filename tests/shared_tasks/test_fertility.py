"""Fertility: lm-eval sends the texts to ``tokenize`` and reports tokens per word and bytes per token."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast

from harness import HarnessError
from harness.tasks.texts import TEXTS


class TokenizerLM(LM):
    """An LM with a tokenizer and nothing else."""

    def __init__(self, encode) -> None:
        super().__init__()
        self._encode = encode

    def tokenize(self, requests):
        return [self._encode(request.args[0]) for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def test_bytes_as_tokens_give_hand_computed_values(evaluate):
    scores = evaluate(TokenizerLM(lambda text: list(text.encode())), "fertility")["results"]["fertility"]
    expected = [len(text.encode()) / len(text.split()) for text in TEXTS]
    assert scores["fertility,none"] == pytest.approx(sum(expected) / 40)
    assert scores["bytes_per_token,none"] == 1.0
    assert scores["bytes_per_token_stderr,none"] == 0.0
    assert scores["sample_len"] == 40


def test_words_as_tokens_have_fertility_one(evaluate):
    run = evaluate(TokenizerLM(lambda text: list(range(len(text.split())))), "fertility")
    assert run["results"]["fertility"]["fertility,none"] == 1.0
    assert run["versions"]["fertility"] == 1.0
    assert run["higher_is_better"]["fertility"] == {"fertility": False, "bytes_per_token": True}


def test_a_real_tokenizer_scores_the_same_twice_with_errors(evaluate, tokenizer: PreTrainedTokenizerFast):
    lm = TokenizerLM(lambda text: tokenizer.encode(text, add_special_tokens=False))
    first, second = (evaluate(lm, "fertility")["results"] for _ in range(2))
    assert first == second
    assert first["fertility"]["fertility,none"] > 1
    assert all(first["fertility"][f"{metric}_stderr,none"] > 0 for metric in ("fertility", "bytes_per_token"))


def test_each_request_is_one_text_whatever_shots_and_limit_ask(evaluate):
    run = evaluate(TokenizerLM(lambda text: [1]), "fertility", limit=3, num_fewshot=2)
    assert [sample["arguments"] for sample in run["samples"]["fertility"]] == [[(text,)] for text in TEXTS[:3]]
    assert run["n-shot"]["fertility"] == 0


def test_it_runs_beside_tasks_with_other_requests(evaluate, tiny_lm):
    run = evaluate(tiny_lm, "fertility", "langgame_contains", metadata={"questions": 8})
    assert set(run["results"]) == {"fertility", "langgame_contains"}


def test_a_tokenizer_without_tokens_is_refused(evaluate):
    with pytest.raises(HarnessError, match="the tokenizer gives no token for the text 'The ferry was late"):
        evaluate(TokenizerLM(lambda text: []), "fertility")


def test_the_class_says_what_it_asks(task_folder: Path):
    task = TaskManager(include_path=str(task_folder), include_defaults=False).load(["fertility"])["tasks"]["fertility"]
    assert task.request_types == ("tokenize",)
