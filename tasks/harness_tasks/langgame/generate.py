"""LangGame questions: which of four words has a property of its letters (Sims et al., 2025, arXiv 2506.01687)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from string import ascii_lowercase
from typing import Literal, TypedDict, get_args

from harness.errors import HarnessError
from harness_tasks import examples
from harness_tasks.draws import Draws, whole_number
from harness_tasks.words import WORDS

Clue = Literal["any", "short", "long"]

CLUE_TYPES = ("contains", "starts_with", "ends_with")
TYPES = ("most_of_letter", *CLUE_TYPES, "longest", "shortest")

EVALUATION_SEED = 2025
EVALUATION_QUESTIONS = 200
"""Seed and number of questions a type, as the task files have them; the command never writes these questions."""


class Question(TypedDict):
    """One question: ``options[answer_index]`` is the only right word."""

    type: str
    question: str
    options: list[str]
    answer_index: int


def questions(count: int, *, seed: int, clue: Clue = "any", types: Sequence[str] | None = None) -> Iterator[Question]:
    """Return the first ``count`` questions of the stream that ``seed``, ``clue`` and ``types`` decide.

    The same arguments give the same questions on any Python and platform; fewer questions are the beginning of more.

    Args:
        count: 0 or more.
        seed: any whole number.
        clue: letters in the clue of ``contains``, ``starts_with`` and ``ends_with``, for a right word of n letters.
            ``any``: 1 to min(3, n). ``short``: 1 to n / 2, from words of 2 letters and more. ``long``: more than n / 2
            and at most n - 1, from words of 3 letters and more; a clue of n letters would be the answer itself.
        types: the types to draw from, each equally likely; None is all six, or with a ``short`` or ``long`` clue the
            three that have one.

    Returns:
        Questions with four different ``options`` in the order in which the text shows them.

    Raises:
        HarnessError: an argument is none of these.
    """
    whole_number("the number of questions", count, at_least=0)
    return islice(_stream(seed, clue, types), count)


def training_examples(count: int, *, seed: int, clue: Clue = "any") -> Iterator[examples.Example]:
    """Return ``count`` questions as supervised examples, without those the tasks ask when nobody changes their seed.

    Returns:
        ``prompt``, the question; ``answer``, one space and the right word; ``type``.

    Raises:
        HarnessError: as ``questions``.
    """
    whole_number("the number of examples", count, at_least=0)
    held_out = _evaluation_texts()
    fresh = (question for question in _stream(seed, clue, None) if question["question"] not in held_out)
    return (
        {
            "prompt": question["question"],
            "answer": " " + question["options"][question["answer_index"]],
            "type": question["type"],
        }
        for question in islice(fresh, count)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = examples.parser(
        prog="python -m harness_tasks.langgame.generate",
        description="Write LangGame questions and their answers, to fine-tune a model before it plays the game.",
        epilog="The questions of the tasks langgame and langgame_ood (at their own seed) are never among them.\n\n"
        "example:\n  python -m harness_tasks.langgame.generate --count 1000 --seed 1 --output train.jsonl",
    )
    parser.add_argument(
        "--clue",
        choices=get_args(Clue),
        default="any",
        help="letters in a clue: 1 to 3 (any, the default), up to half of the right word (short, to train on before "
        "langgame_ood), or more than half (long, as langgame_ood asks)",
    )
    return examples.run(
        parser, arguments, lambda options: training_examples(options.count, seed=options.seed, clue=options.clue)
    )


def _evaluation_texts() -> set[str]:
    asked: list[tuple[Clue, Sequence[str]]] = [("any", TYPES), ("long", CLUE_TYPES)]
    return {
        question["question"]
        for clue, types in asked
        for question_type in types
        for question in questions(EVALUATION_QUESTIONS, seed=EVALUATION_SEED, clue=clue, types=(question_type,))
    }


def _stream(seed: int, clue: Clue, types: Sequence[str] | None) -> Iterator[Question]:
    whole_number("the seed", seed)
    if clue not in get_args(Clue):
        raise HarnessError(f"there is no clue {clue!r}; choose from {', '.join(get_args(Clue))}")
    allowed = TYPES if clue == "any" else CLUE_TYPES
    chosen = allowed if types is None else tuple(types)
    unknown = [question_type for question_type in chosen if question_type not in allowed]
    if unknown or not chosen:
        raise HarnessError(
            f"there is no question type {', '.join(map(repr, unknown)) or 'to draw'} with clue {clue!r}; "
            f"choose from {', '.join(allowed)}"
        )
    return _endless(Draws("langgame", clue, *chosen, seed), clue, chosen)


def _endless(draws: Draws, clue: Clue, types: Sequence[str]) -> Iterator[Question]:
    while True:
        question_type = draws.one_of(types)
        demand, right, wrong = _puzzle(question_type, draws, clue)
        words = [right, *wrong]
        answer_index = draws.below(len(words))
        shown = [words[(position - answer_index) % len(words)] for position in range(len(words))]
        yield {
            "type": question_type,
            "question": _text(demand, shown, draws),
            "options": shown,
            "answer_index": answer_index,
        }


_WITH_TWO = {
    letter: words for letter in ascii_lowercase if (words := tuple(word for word in WORDS if word.count(letter) >= 2))
}
_WITH_CLUE = {
    "any": WORDS,
    "short": tuple(word for word in WORDS if len(word) >= 2),
    "long": tuple(word for word in WORDS if len(word) >= 3),
}
_WITHOUT: dict[str, Callable[[str], list[str]]] = {
    "contains": lambda piece: [word for word in WORDS if piece not in word],
    "starts_with": lambda piece: [word for word in WORDS if not word.startswith(piece)],
    "ends_with": lambda piece: [word for word in WORDS if not word.endswith(piece)],
}
_VERBS = {"contains": "contains", "starts_with": "starts with", "ends_with": "ends with"}


def _puzzle(question_type: str, draws: Draws, clue: Clue) -> tuple[str, str, list[str]]:
    match question_type:
        case "most_of_letter":
            letter = draws.one_of(tuple(_WITH_TWO))
            demand = f"has the most letter '{letter}'s?"
            return demand, draws.one_of(_WITH_TWO[letter]), _wrong(draws, lambda word: word.count(letter) <= 1)
        case "longest":
            right = draws.one_of([word for word in WORDS if len(word) >= 7])
            return "is the longest?", right, _wrong(draws, lambda word: len(word) <= 4)
        case "shortest":
            right = draws.one_of([word for word in WORDS if len(word) <= 3])
            return "is the shortest?", right, _wrong(draws, lambda word: len(word) >= 6)
        case _:
            return _clue_puzzle(question_type, draws, clue)


def _clue_puzzle(question_type: str, draws: Draws, clue: Clue) -> tuple[str, str, list[str]]:
    right = draws.one_of(_WITH_CLUE[clue])
    letters = _clue_letters(len(right), draws, clue)
    last_start = len(right) - letters
    start = {"contains": draws.below(last_start + 1), "starts_with": 0, "ends_with": last_start}[question_type]
    piece = right[start : start + letters]
    return f"{_VERBS[question_type]} '{piece}'?", right, draws.several_of(_WITHOUT[question_type](piece), 3)


def _clue_letters(word_letters: int, draws: Draws, clue: Clue) -> int:
    half = word_letters // 2
    match clue:
        case "any":
            return 1 + draws.below(min(3, word_letters))
        case "short":
            return 1 + draws.below(half)
        case "long":
            return half + 1 + draws.below(word_letters - 1 - half)


def _wrong(draws: Draws, is_wrong: Callable[[str], bool]) -> list[str]:
    return draws.several_of([word for word in WORDS if is_wrong(word)], 3)


# The second noun is empty: the paper's data have "Which  contains 'a'?", with two spaces.
_NOUNS = ("word", "", "string", "option", "choice", "option word", "option string")
_PLURALS = ("options", "choices", "option words", "option strings")
_ARTICLES = ("the", "the possible", "the available")


def _text(demand: str, options: Sequence[str], draws: Draws) -> str:
    phrase = f"{draws.one_of(_ARTICLES)} {draws.one_of(_PLURALS)}"
    opener = draws.one_of(("Which", "What", "Which of"))
    subject = phrase if opener == "Which of" else draws.one_of(_NOUNS)
    introduction = draws.one_of((f"{phrase}:", f"{phrase} are:", f"these are {phrase}:"))
    parts = [
        f"{opener} {subject} {demand}",
        f"{introduction[0].upper()}{introduction[1:]} [ {', '.join(options)}].",
    ]
    if draws.below(2):
        parts.reverse()
    return f"{parts[0]} {parts[1]} Answer:"


if __name__ == "__main__":
    raise SystemExit(main())
