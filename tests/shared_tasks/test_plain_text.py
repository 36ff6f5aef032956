"""Plain text: bits per byte of ordinary text, whatever the tokenizer."""

from __future__ import annotations

import math
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from harness.tasks.texts import TEXTS


class EightBitsLM(LM):
    """Finds every byte as likely as any other."""

    def loglikelihood_rolling(self, requests):
        return [-8 * math.log(2) * len(request.args[0].encode()) for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def test_bytes_that_are_all_alike_take_eight_bits(evaluate) -> None:
    run = evaluate(EightBitsLM(), "plain_text")
    assert run["results"]["plain_text"]["bits_per_byte,none"] == pytest.approx(8)
    assert run["results"]["plain_text"]["sample_len"] == len(TEXTS) == 40
    assert run["higher_is_better"]["plain_text"] == {"bits_per_byte": False}


def test_a_model_takes_its_log_likelihood_in_bits_over_bytes(evaluate, tiny_lm) -> None:
    found: dict[str, Any] = evaluate(tiny_lm, "plain_text")["results"]["plain_text"]
    whole = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in TEXTS]
    nats = tiny_lm.loglikelihood_rolling(whole, disable_tqdm=True)
    bits = [-one / math.log(2) / len(text.encode()) for one, text in zip(nats, TEXTS, strict=True)]
    assert found["bits_per_byte,none"] == pytest.approx(sum(bits) / len(bits), rel=1e-6)
    assert found["bits_per_byte_stderr,none"] > 0
