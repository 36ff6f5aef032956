"""The fourteen CUTE tasks: what each asks, with four worked examples, in our own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CuteTask:
    """One task of the benchmark.

    ``question`` has a numbered gap for each input; a worked example is the inputs and then the label.
    """

    instruction: str
    question: str
    worked: tuple[tuple[str, ...], ...]
    ignores_case: bool = False
    is_two_way: bool = False

    @property
    def inputs(self) -> int:
        """The number of inputs a question has: 1, 2 or 3."""
        return len(self.worked[0]) - 1

    def prompt(self, inputs: Sequence[str]) -> str:
        """Return instruction, worked examples and the question; the reply is to open with ``Answer: "``."""
        shown = [f'{self.question.format(*example[:-1])}\nAnswer: "{example[-1]}"' for example in self.worked]
        return "\n\n".join([self.instruction, *shown, self.question.format(*inputs)])


TASKS: dict[str, CuteTask] = {
    "spell": CuteTask(
        "Write the letters of the word one by one, with a space between them.",
        "Spell the word: {0}",
        (("lamp", "l a m p"), ("window", "w i n d o w"), ("oak", "o a k"), ("tunnel", "t u n n e l")),
    ),
    "spell_inverse": CuteTask(
        "The letters of a word stand apart. Write the word that they spell.",
        "Join the letters: {0}",
        (("l a m p", "lamp"), ("w i n d o w", "window"), ("o a k", "oak"), ("t u n n e l", "tunnel")),
    ),
    "contains_char": CuteTask(
        "Say whether the letter occurs in the word. Answer Yes or No.",
        "Is the letter {0} in the word {1}?",
        (("m", "lamp", "Yes"), ("s", "window", "No"), ("r", "oak", "No"), ("t", "tunnel", "Yes")),
        is_two_way=True,
    ),
    "contains_word": CuteTask(
        "Say whether the word occurs in the sentence. Answer Yes or No.",
        "Is the word {0} in this sentence: {1}",
        (
            ("boat", "Our boat left at noon.", "Yes"),
            ("river", "Nobody closed the gate.", "No"),
            ("paper", "A new roof costs money.", "No"),
            ("snow", "We walked home through the snow.", "Yes"),
        ),
        ignores_case=True,
        is_two_way=True,
    ),
    "orth": CuteTask(
        "Choose the word that is spelled more like the first word: the one that fewer changed letters lead to.",
        "Which is spelled more like {0}: {1} or {2}?",
        (
            ("coat", "jacket", "goat", "goat"),
            ("house", "mouse", "building", "mouse"),
            ("slow", "fast", "snow", "snow"),
            ("light", "night", "lamp", "night"),
        ),
        is_two_way=True,
    ),
    "sem": CuteTask(
        "Choose the word whose meaning is closer to that of the first word.",
        "Which is closer in meaning to {0}: {1} or {2}?",
        (
            ("coat", "jacket", "goat", "jacket"),
            ("house", "mouse", "building", "building"),
            ("slow", "fast", "snow", "fast"),
            ("light", "night", "lamp", "lamp"),
        ),
        is_two_way=True,
    ),
    "ins_char": CuteTask(
        "Write the word with a new letter put after every place where the given letter stands.",
        "Insert {0} after every {1} in the word {2}.",
        (
            ("x", "m", "lamp", "lamxp"),
            ("e", "w", "window", "weindowe"),
            ("b", "k", "oak", "oakb"),
            ("s", "n", "tunnel", "tunsnsel"),
        ),
    ),
    "ins_word": CuteTask(
        "Write the sentence with a new word put after every place where the given word stands.",
        "Insert the word {0} after every {1} in this sentence: {2}",
        (
            ("green", "boat", "Our boat left at noon.", "Our boat green left at noon."),
            ("seven", "gate", "Nobody closed the gate.", "Nobody closed the gate seven."),
            ("cold", "new", "A new roof costs money.", "A new cold roof costs money."),
            ("fish", "the", "We took the bus to the lake.", "We took the fish bus to the fish lake."),
        ),
        ignores_case=True,
    ),
    "del_char": CuteTask(
        "Write the word without the given letter, wherever it stands.",
        "Delete every {0} from the word {1}.",
        (("m", "lamp", "lap"), ("w", "window", "indo"), ("k", "oak", "oa"), ("n", "tunnel", "tuel")),
    ),
    "del_word": CuteTask(
        "Write the sentence without the given word, wherever it stands.",
        "Delete the word {0} from this sentence: {1}",
        (
            ("left", "Our boat left at noon.", "Our boat at noon."),
            ("gate", "Nobody closed the gate.", "Nobody closed the."),
            ("A", "A new roof costs money.", "new roof costs money."),
            ("the", "We took the bus to the lake.", "We took bus to lake."),
        ),
        ignores_case=True,
    ),
    "sub_char": CuteTask(
        "Write the word with every place of one letter taken by another letter.",
        "Replace every {0} by {1} in the word {2}.",
        (
            ("m", "s", "lamp", "lasp"),
            ("w", "k", "window", "kindok"),
            ("o", "e", "oak", "eak"),
            ("n", "r", "tunnel", "turrel"),
        ),
    ),
    "sub_word": CuteTask(
        "Write the sentence with every place of one word taken by another word.",
        "Replace the word {0} by {1} in this sentence: {2}",
        (
            ("boat", "green", "Our boat left at noon.", "Our green left at noon."),
            ("gate", "seven", "Nobody closed the gate.", "Nobody closed the seven."),
            ("A", "cold", "A new roof costs money.", "cold new roof costs money."),
            ("the", "fish", "We took the bus to the lake.", "We took fish bus to fish lake."),
        ),
        ignores_case=True,
    ),
    "swap_char": CuteTask(
        "Write the word with two of its letters in each other's place.",
        "Swap {0} and {1} in the word {2}.",
        (
            ("l", "p", "lamp", "paml"),
            ("i", "d", "window", "wdniow"),
            ("o", "k", "oak", "kao"),
            ("t", "e", "tunnel", "eunntl"),
        ),
    ),
    "swap_word": CuteTask(
        "Write the sentence with two of its words in each other's place.",
        "Swap the words {0} and {1} in this sentence: {2}",
        (
            ("boat", "noon", "Our boat left at noon.", "Our noon left at boat."),
            ("closed", "Nobody", "Nobody closed the gate.", "closed Nobody the gate."),
            ("roof", "costs", "A new roof costs money.", "A new costs roof money."),
            ("bus", "lake", "We took the bus to the lake.", "We took the lake to the bus."),
        ),
        ignores_case=True,
    ),
}
