"""Addition questions ``$a+b=`` whose answer is the sum with its lowest digit first (Sims et al., 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, TypedDict, get_args
from zlib import crc32

from harness.errors import HarnessError
from harness_tasks import examples
from harness_tasks.draws import Draws, whole_number

Part = Literal["train", "test"]

PAIRS: dict[Part, int] = {"train": 810_052, "test": 89_948}
"""How many of the 900,000 pairs each part has: nine tenths to train on, one tenth to be asked."""


class Question(TypedDict):
    """One sum: ``question`` is ``$left+right=``, ``answer`` the digits of the sum from lowest to highest."""

    left: int
    right: int
    question: str
    answer: str


def questions(count: int, *, seed: int, part: Part = "train") -> Iterator[Question]:
    """Return the first ``count`` questions of the stream that ``seed`` and ``part`` decide, none of them twice.

    ``left`` is 100 to 999 and ``right`` 0 to 999, without leading zeros. A pair belongs to one part for ever, whatever
    the seed, so nothing that was trained on is asked. The same arguments give the same questions on any Python and
    platform, and fewer questions are the beginning of more.

    Raises:
        HarnessError: ``seed`` is no whole number, there is no such ``part``, or ``count`` is not 0 to ``PAIRS[part]``.
    """
    whole_number("the seed", seed)
    if part not in get_args(Part):
        raise HarnessError(f"there is no part {part!r}; choose from {', '.join(get_args(Part))}")
    if whole_number("the number of questions", count, at_least=0) > PAIRS[part]:
        raise HarnessError(
            f"{count} questions are asked for, but only {PAIRS[part]} pairs are for {part}; ask for fewer"
        )
    return islice(_endless(Draws("addition_3digit", part, seed), part), count)


def training_examples(count: int, *, seed: int) -> Iterator[examples.Example]:
    """Return ``count`` supervised examples.

    Returns:
        ``prompt``, the question; ``answer``, the reversed sum and the ``$`` that ends it; ``type``.

    Raises:
        HarnessError: as ``questions``.
    """
    # The $ opens the next question where examples are laid end to end; without it a model never learns where to stop.
    return (
        {"prompt": question["question"], "answer": question["answer"] + "$", "type": "addition_3digit"}
        for question in questions(count, seed=seed, part="train")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = examples.parser(
        prog="python -m harness_tasks.addition.generate",
        description="Write sums such as $123+45= with the answer 861$ (168 reversed), to fine-tune a model on.",
        epilog="The task addition_3digit asks other pairs, whatever the seed.\n\n"
        "example:\n  python -m harness_tasks.addition.generate --count 10000 --seed 1 --output sums.jsonl",
    )
    return examples.run(parser, arguments, lambda options: training_examples(options.count, seed=options.seed))


def _endless(draws: Draws, part: Part) -> Iterator[Question]:
    seen: set[tuple[int, int]] = set()
    while True:
        pair = left, right = 100 + draws.below(900), draws.below(1000)
        if pair in seen or _part_of(left, right) != part:
            continue
        seen.add(pair)
        yield {"left": left, "right": right, "question": f"${left}+{right}=", "answer": str(left + right)[::-1]}


def _part_of(left: int, right: int) -> Part:
    # A checksum scatters the tenth over all digits; a rule such as "left + right ends in 0" would hide whole sums.
    return "test" if crc32(f"{left}+{right}".encode()) % 10 == 0 else "train"


if __name__ == "__main__":
    raise SystemExit(main())
