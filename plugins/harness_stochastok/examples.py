"""Supervised examples for the second stage of the paper's protocol: loss on the answer only."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.json_lines import read_json_lines
from harness.seeds import stream_seed
from harness_stochastok.splitting import expand
from harness_stochastok.windows import Resplitter

Row = tuple[list[int], list[int]]


def read_examples(path: Path) -> list[tuple[str, str]]:
    """Return (prompt, answer) of a JSON-lines file with both as text. Raises ``HarnessError`` where one is missing."""
    return [(row["prompt"], row["answer"]) for row in read_json_lines(path, {"prompt": str, "answer": str})]


def rows(
    examples: Sequence[tuple[str, str]], resplitter: Resplitter, *, length: int, expand_examples: bool
) -> Iterator[Row]:
    """Yield (ids, labels) of examples, each epoch in another order, endlessly; labels are -100 over the prompt.

    Prompt and answer are encoded apart, and expanded apart when asked to, so that the border stays a token border.
    Successes are capped so that an example still fits ``length``; only a prompt that is too long by itself is cut, on
    the left.

    Raises:
        HarnessError: an answer alone is longer than the context.
    """
    tokenizer, epoch = resplitter.tokenizer, 0
    encoded = []
    for prompt, answer in examples:
        prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
        answer_ids = tokenizer.encode(answer, add_special_tokens=False)
        if not answer_ids or len(answer_ids) >= length:
            raise HarnessError(f"an example's answer has {len(answer_ids)} tokens; 1 to {length - 1} fit the context")
        encoded.append((prompt_ids[-(length - len(answer_ids)) :], answer_ids))
    while True:
        order = list(range(len(encoded)))
        random.Random(stream_seed(resplitter.seed, "examples", epoch)).shuffle(order)
        for number in order:
            prompt_ids, answer_ids = encoded[number]
            if expand_examples:
                room = length - len(prompt_ids) - len(answer_ids)
                seed = stream_seed(resplitter.seed, "example", epoch, number)
                prompt_ids = expand(
                    prompt_ids, resplitter.split_table, proportion=resplitter.proportion, seed=seed, max_splits=room
                )
                room = length - len(prompt_ids) - len(answer_ids)
                answer_ids = expand(
                    answer_ids, resplitter.split_table, proportion=resplitter.proportion, seed=seed + 1, max_splits=room
                )
            yield [*prompt_ids, *answer_ids], [-100] * len(prompt_ids) + answer_ids
        epoch += 1
