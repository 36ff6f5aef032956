"""How fast StochasTok splits: ``python benchmarks/expansion.py [--tokenizer PATH]``, on one core.

Text is the documentation that comes with Python, repeated up to the number of tokens asked for.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from pydoc_data.topics import topics  # type: ignore[import-untyped,unused-ignore]
from typing import TypeVar

from harness.models.finding import load_tokenizer
from harness.models.token_bytes import token_bytes
from harness.seeds import stream_seed
from harness_stochastok.bpe_dropout import BpeDropout
from harness_stochastok.splitting import SplitTable, build_split_table, expand, table_digest

MEDIAN_LENGTH = 536
Result = TypeVar("Result")


def main() -> None:
    """Print seconds to build the table, then tokens per second, alone and against the tokenizer's own speed."""
    arguments = _parser().parse_args()
    tokenizer = load_tokenizer(arguments.tokenizer)
    seconds, table = best(lambda: build_split_table(token_bytes(tokenizer)), arguments.repeats)
    print(f"{len(tokenizer):,} ids, {len(table):,} of them with splits (digest {table_digest(table)[:12]})")
    print(f"reading the vocabulary and building the table: {seconds:.2f} s")

    text = "\n".join(map(str, topics.values()))
    seconds, text_ids = best(lambda: tokenizer.encode(text, add_special_tokens=False, verbose=False), arguments.repeats)
    encoding_speed = len(text_ids) / seconds
    print(f"the tokenizer encodes {encoding_speed / 1e6:.2f} M tokens/s; in the table, x times as many\n")
    print(f"{'':32}{'M tokens/s':>12}{'x':>8}{'pieces per token':>20}")

    token_ids = (text_ids * (arguments.tokens // len(text_ids) + 1))[: arguments.tokens]
    for title, documents in (
        (f"one list of {len(token_ids):,}", [token_ids]),
        (f"documents of median {MEDIAN_LENGTH}", cut_into_documents(token_ids)),
    ):
        for proportion in arguments.proportion:
            seconds, pieces = best(partial(expand_all, documents, table, proportion), arguments.repeats)
            show(f"{title}, p={proportion:g}", len(token_ids), seconds, encoding_speed, pieces)
    if arguments.dropout is not None:
        encoder = BpeDropout.from_tokenizer(tokenizer, arguments.dropout)
        seconds, piece_ids = best(lambda: encoder.encode(text, seed=0), arguments.repeats)
        show(f"BPE-dropout, q={arguments.dropout:g}", len(text_ids), seconds, encoding_speed, len(piece_ids))


def best(measured: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Return the fewest seconds of several calls, and what the last one returned."""
    fewest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = measured()
        fewest = min(fewest, time.perf_counter() - start)
    return fewest, result


def cut_into_documents(token_ids: list[int]) -> list[list[int]]:
    """Cut a list into documents whose lengths spread around ``MEDIAN_LENGTH`` by a factor of two."""
    generator = random.Random(0)
    documents, start = [], 0
    while start < len(token_ids):
        length = max(1, int(MEDIAN_LENGTH * 2 ** generator.gauss(0, 1)))
        documents.append(token_ids[start : start + length])
        start += length
    return documents


def expand_all(documents: list[list[int]], table: SplitTable, proportion: float) -> int:
    """Expand every document with a stream of its own, and return how many pieces there are then."""
    return sum(
        len(expand(document, table, proportion=proportion, seed=stream_seed(0, 0, index)))
        for index, document in enumerate(documents)
    )


def show(title: str, tokens: int, seconds: float, encoding_speed: float, pieces: int) -> None:
    """Print a row of the table."""
    speed = tokens / seconds
    print(f"{title:32}{speed / 1e6:12.2f}{speed / encoding_speed:8.1f}{pieces / tokens:20.3f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", metavar="PATH", help="a model folder or hub name (default: the embedded model)")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="to expand (default: 1000000)")
    parser.add_argument("--proportion", type=float, nargs="+", default=[0.1, 1.0], help="(default: 0.1 1.0)")
    parser.add_argument("--dropout", type=float, help="measure BPE-dropout too, with this probability")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts (default: 3)")
    return parser


if __name__ == "__main__":
    main()
