"""The phrasings of planted stories: the same sums, told in words that the others never use.

In a template ``{equation}`` stands for a whole sum such as `22 + 49 = 71`, ``{number}`` for the number of the question that
belongs to the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.names import printable, suggestion

Templates = tuple[str, ...]
MIXED = "mixed"
"""The name under which all styles are asked for."""


@dataclass(frozen=True)
class Style:
    """One way to tell stories and to solve them.

    Attributes:
        people: names, that of nobody in another style.
        things: what is counted, in the plural.
        starts: first sentences of a question.
        changes: its further sentences, by operator: ``+``, ``-``, ``*``.
        asks: its last sentences.
        firsts: first sentences of a solution.
        steps: its further sentences, by operator; of each at least one that does not name the number before the sum.
        lasts: its last sentences, which hold "answer is".
    """

    people: Templates
    things: Templates
    starts: Templates
    changes: Mapping[str, Templates]
    asks: Templates
    firsts: Templates
    steps: Mapping[str, Templates]
    lasts: Templates


STYLES: Mapping[str, Style] = {
    "plain": Style(
        people=("Mara", "Tom", "Ines", "Paul", "Rosa", "Karl", "Nora", "Emil"),
        things=("apples", "stamps", "marbles", "tickets", "candles", "coins"),
        starts=("{name} has {number} {things}.", "At first {name} owns {number} {things}."),
        changes={
            "+": ("{name} gets {number} more.", "{name} finds {number} more.", "{name} buys another {number}."),
            "-": ("{name} gives {number} away.", "{name} loses {number}.", "{name} sells {number} of them."),
            "*": ("After that {name} has {number} times as many.", "Then there are {number} times as many."),
        },
        asks=("How many {things} does {name} have now?", "How many {things} are there in the end?"),
        firsts=("{name} starts with {number} {things}.", "At first there are {number} {things}.", "We have {number} at first."),
        steps={
            "+": ("Adding {number} gives {equation}.", "Now {name} has {equation} {things}.", "That makes {equation}."),
            "-": ("Taking {number} away leaves {equation}.", "Now {name} has {equation} {things}.", "That leaves {equation}."),
            "*": ("Taken {number} times it gives {equation}.", "Now {name} has {equation} {things}.", "That makes {equation}."),
        },
        lasts=("The answer is {number}.", "So the answer is {number}."),
    ),
    "notes": Style(
        people=("Yusuf", "Zelda", "Quinn", "Xenia", "Ugo", "Wanda"),
        things=("bolts", "seeds", "pages", "bricks", "corks"),
        starts=("In a box: {number} {things}.", "{name} notes {number} {things}."),
        changes={
            "+": ("Delivered: {number}.", "Plus {number} from the attic."),
            "-": ("Broken: {number}.", "Minus {number} for the neighbour."),
            "*": ("Count times {number}, says {name}.", "A copy machine makes it {number}-fold."),
        },
        asks=("Count at closing time?", "Which count does {name} write down?"),
        firsts=("Begin: {number}.", "Count {number}, {things}."),
        steps={
            "+": ("Up {number}: {equation}.", "Gain, {equation}.", "Higher: {equation}."),
            "-": ("Down {number}: {equation}.", "Loss, {equation}.", "Lower: {equation}."),
            "*": ("Fold {number}: {equation}.", "Product, {equation}.", "Much higher: {equation}."),
        },
        lasts=("Result: the answer is {number}.", "Hence answer is {number}."),
    ),
    "spoken": Style(
        people=("Bo", "Dee", "Gus", "Lou", "Mimi", "Otis"),
        things=("pancakes", "balloons", "cookies", "socks", "puppies"),
        starts=("Guess what, {name} showed up with {number} {things}!", "So {name} had like {number} {things}."),
        changes={
            "+": ("Then somebody brought {number} extra.", "And {number} turned up in the kitchen."),
            "-": ("Well, {number} vanished overnight.", "Sadly {number} had to go."),
            "*": ("And would you believe it, that grew {number} times over!", "A magician turned each into {number}."),
        },
        asks=("What is {name} looking at today?", "Go on, what is the total?"),
        firsts=("Okay, so {name} walks in with {number}.", "Right, picture {number} {things}."),
        steps={
            "+": ("Throw in the extra {number} and you get {equation}, nice.", "Pile those on top, {equation}, easy."),
            "-": ("Knock off the {number} and it drops, {equation}, too bad.", "Some are gone, so {equation}, oh well."),
            "*": ("Blow it up by {number} and wow, {equation}.", "It all multiplies, {equation}, crazy."),
        },
        lasts=("Which means my answer is {number}!", "And there we go, answer is {number}."),
    ),
    "ledger": Style(
        people=("Agent Brandt", "Clerk Osei", "Keeper Ruiz", "Warden Lind"),
        things=("barrels", "crates", "sacks", "ingots"),
        starts=("Opening inventory under {name}: {number} {things}.", "The register of {name} opens at {number} {things}."),
        changes={
            "+": ("Receipt of {number} {things}.", "A shipment adds {number}."),
            "-": ("Dispatch of {number} {things}.", "An audit writes off {number}."),
            "*": ("Merger with equal depots, factor {number}.", "The holding is scaled by {number}."),
        },
        asks=("State the closing inventory.", "Report the balance to {name}."),
        firsts=("Opening balance {number} {things}.", "Carried forward, {number}."),
        steps={
            "+": ("Credit {number}, balance {equation}.", "Entry on the credit side, balance {equation}."),
            "-": ("Debit {number}, balance {equation}.", "Entry on the debit side, balance {equation}."),
            "*": ("Factor {number}, balance {equation}.", "Entry for the merger, balance {equation}."),
        },
        lasts=("Closing balance stated, the answer is {number}.", "Signed off, the answer is {number}."),
    ),
    "lesson": Style(
        people=("the class", "our group", "the red team", "the visitors"),
        things=("points", "pebbles", "shells", "leaves", "beads"),
        starts=("Suppose that {name} collected {number} {things}.", "Imagine {number} {things} on the desk of {name}."),
        changes={
            "+": ("We put {number} beside them.", "Now imagine {number} being added."),
            "-": ("We cover {number} with a cloth.", "Now imagine {number} being removed."),
            "*": ("We repeat the whole heap {number} times.", "Now imagine the heap {number} times."),
        },
        asks=("Can you work out how many {things} we see?", "What should be written on the board?"),
        firsts=("We write {number} on the board.", "Let us look at {number} {things} first."),
        steps={
            "+": ("Since {number} are put beside them, we see {equation}.", "The sum here equals {equation}, as we learned."),
            "-": ("Since {number} are covered, we see {equation}.", "The difference here equals {equation}, as we learned."),
            "*": ("Since we repeat it {number} times, we see {equation}.", "The product here equals {equation}, as we learned."),
        },
        lasts=("We have shown that the answer is {number}.", "Therefore, dear pupils, the answer is {number}."),
    ),
}  # fmt: skip


def styles_named(names: str) -> list[str]:
    """Return the styles that ``plain+notes`` or ``mixed`` names, in that order.

    Raises:
        HarnessError: there is no such style.
    """
    if names == MIXED:
        return list(STYLES)
    found = names.split("+")
    for name in found:
        if name not in STYLES:
            raise HarnessError(
                f"there is no style '{printable(name)}' of stories; {suggestion(name, [*STYLES, MIXED])}"
            )
    return found
