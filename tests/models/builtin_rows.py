"""Invented rows with the columns that lm-eval's built-in tasks read, in place of what those would download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

# Of each task's rows the first are evaluated, the others are for its shots.
EVALUATED, SHOTS = 3, 6

NAMES = ["Odo", "Petra", "Inès", "Kofi", "Maren", "Tobias", "Yuki", "Bo"]
THINGS = ["kettle", "lantern", "violin", "rope ladder", "anchor", "basket", "kite", "drum"]
PLACES = ["harbour", "mill", "orchard", "ferry", "attic", "bakery", "old lighthouse", "well"]
STUFF = ["copper", "oak", "wool", "clay", "glass", "tin", "straw", "silk"]
STORIES = [
    "The clockmaker's shop stood between a bakery and a bank. It was never quiet there.",
    "Forty clocks ticked on the shelf, so that noon took four minutes to pass.",
    "Café Zephyr closes at 18:30 — the owner, 林, then feeds three cats.",
    "Nobody had wound the cuckoo since the war. Now it only bowed.",
    "Rain fell. It fell on the mill, on the ferry and on the man who sold kites.",
    "She wrote the hour of each in a ledger: 7:58, 8:01, 8:02.",
    "Together they are never far wrong.",
    "Customers would ask which clock was right; none was, said the clockmaker.",
]


def of(words: list[str], n: int) -> str:
    return words[n % len(words)]


def four(n: int) -> list[str]:
    """Return four choices: one begins another, two are the same, and the lengths differ."""
    thing = of(THINGS, n)
    return [
        [f"a {thing}", f"a {thing} of {of(STUFF, n)}", "none", f"{of(NAMES, n + 3)}'s {of(PLACES, n)}, near the sea"],
        ["yes", "yes", "no", f"only in the {of(PLACES, n + 2)}"],
        [of(STUFF, n), of(STUFF, n + 1), of(STUFF, n + 2), of(STUFF, n + 3)],
        [f"{n}", f"{n}{n}", "12 000", f"½ of {n}"],
    ][n % 4]


def asked(n: int) -> str:
    return f"Which {of(THINGS, n)} did {of(NAMES, n + 1)} leave at the {of(PLACES, n)}"


def labelled(n: int) -> Row:
    return {"label": ["A", "B", "C", "D"], "text": four(n)}


def told(n: int) -> str:
    return f"{of(NAMES, n)} mends a {of(THINGS, n)}. {of(STORIES, n)}"


def with_pronoun(n: int) -> Row:
    text = f"{of(NAMES, n)} met the baker at the {of(PLACES, n)} and he lent him a {of(THINGS, n)} ."
    words = text.split()
    return {"text": text, "span1_text": of(NAMES, n), "span2_text": "he", "span2_index": words.index("he")}


def winograd(n: int) -> Row:
    text = f"{of(NAMES, n)} thanked {of(NAMES, n + 1)}  because he had found the {of(THINGS, n)}."
    text = text.replace("  ", " ")
    options = [of(NAMES, n), "The " + of(NAMES, n + 1)]
    return {"text": text, "pronoun": "he", "pronoun_loc": text.index("he had"), "options": options, "label": n % 2}


def race(n: int) -> Row:
    problems: list[Row] = [
        {"question": f"{of(NAMES, n)} lives near the  _  .", "options": four(n), "answer": "B"},
        {"question": asked(n) + "?", "options": four(n + 1), "answer": "C"},
        {"question": asked(n + 1) + "?", "options": four(n + 2), "answer": "ABCD"[n % 4]},
    ]
    return {"article": told(n), "problems": repr(problems)}


def dropped(n: int) -> Row:
    nothing = {"day": "", "month": "", "year": ""}
    answer = {"number": str(n) if n % 2 else "", "date": nothing, "spans": [] if n % 2 else [of(THINGS, n), "sea"]}
    several = {"number": ["7", ""], "date": [nothing, nothing], "spans": [[], [of(PLACES, n)]]}
    return {
        "query_id": str(n),
        "passage": told(n),
        "question": asked(n) + "?",
        "answer": answer,
        "validated_answers": several,
    }


def worked(n: int) -> Row:
    return {
        "question": f"{of(NAMES, n)} has {n + 3} of {n + 9} {of(THINGS, n)}s. How many are missing?",
        "answer": f"There are {n + 9} - {n + 3} = <<{n + 9}-{n + 3}=6>>6 missing.\n#### 6",
    }


# By the task's file in lm_eval/tasks: what makes its row of that number.
ROWS: dict[str, Callable[[int], Row]] = {
    # Several choices after one context.
    "arc/arc_easy": lambda n: {"question": asked(n) + "?", "choices": labelled(n), "answerKey": "ABCD"[n % 4]},
    "hellaswag/hellaswag": lambda n: {
        "activity_label": f"Mending a {of(THINGS, n)}",
        "ctx_a": f"{of(NAMES, n)} holds it. [header] How [title] It is old.",
        "ctx_b": "the other hand",
        "endings": [f"{choice}.  [step] Then on." for choice in four(n)],
        "label": str(n % 4),
    },
    "piqa/piqa": lambda n: {
        "goal": f"To dry {of(STUFF, n)} at the {of(PLACES, n)},",
        "sol1": f"hang it over the {of(THINGS, n)}.",
        "sol2": f"hang it over the {of(THINGS, n)} and wait.",
        "label": n % 2,
    },
    "super_glue/boolq/default": lambda n: {
        "passage": told(n),
        "question": f"is the {of(THINGS, n)} of {of(STUFF, n)}",
        "label": n % 2,
    },
    "sciq/sciq": lambda n: {
        "support": "" if n % 2 else f"  {told(n)}",
        "question": asked(n) + "?",
        "distractor1": four(n)[0],
        "distractor2": four(n)[1],
        "distractor3": four(n)[2],
        "correct_answer": four(n)[3],
    },
    "openbookqa/openbookqa": lambda n: {
        "question_stem": f"A {of(THINGS, n)} of {of(STUFF, n)} is",
        "choices": labelled(n),
        "answerKey": " " * (n % 2) + "ABCD"[n % 4],
    },
    "swag/swag": lambda n: {
        "startphrase": f"{of(NAMES, n)} opens the {of(PLACES, n)}. He",
        **{f"ending{place}": choice for place, choice in enumerate(four(n))},
        "label": n % 4,
    },
    "mmlu/default/mmlu_anatomy": lambda n: {"question": f" {asked(n)}? ", "choices": four(n), "answer": n % 4},
    "mmlu/continuation/mmlu_anatomy": lambda n: {"question": f" {asked(n)}? ", "choices": four(n), "answer": n % 4},
    "commonsense_qa/default": lambda n: {
        "question": asked(n) + "?",
        "choices": {"label": list("ABCDE"), "text": [*four(n), "a cloud"]},
        "answerKey": "ABCDE"[n % 5],
    },
    "truthfulqa/truthfulqa_mc1": lambda n: {
        "question": asked(n) + "?",
        "mc1_targets": {"choices": four(n)[: 2 + n % 3], "labels": [1, 0, 0, 0][: 2 + n % 3]},
        "mc2_targets": {"choices": four(n), "labels": [1, n % 2, 1, 0]},
    },
    "truthfulqa/truthfulqa_mc2": lambda n: {
        "question": asked(n) + "?",
        "mc2_targets": {"choices": four(n)[: 2 + n % 3], "labels": [1, n % 2, 1, 0][: 2 + n % 3]},
    },
    "race/race": race,
    "super_glue/copa/default": lambda n: {
        "premise": f"The {of(THINGS, n)} fell into the {of(PLACES, n)}.",
        "question": ["cause", "effect"][n % 2],
        "choice1": f"It was of {of(STUFF, n)}.",
        "choice2": f"{of(NAMES, n)} had pushed it.",
        "label": n % 2,
    },
    "super_glue/wsc/default": lambda n: {**with_pronoun(n), "label": n % 2},
    "super_glue/multirc/default": lambda n: {
        "paragraph": told(n),
        "question": asked(n) + "?",
        "answer": four(n)[n % 4],
        "label": n % 2,
    },
    "super_glue/cb/default": lambda n: {"premise": told(n), "hypothesis": of(STORIES, n + 1), "label": n % 3},
    "glue/cola/default": lambda n: {"sentence": f"{of(NAMES, n)} the {of(THINGS, n)} mends.", "label": n % 2},
    "mc_taco/default": lambda n: {
        "sentence": told(n),
        "question": f"How long did the {of(THINGS, n)} last?",
        "answer": f"{n} years",
        "label": n % 2,
    },
    "anli/anli_r1": lambda n: {"premise": told(n), "hypothesis": of(STORIES, n + 2), "label": n % 3},
    "toxigen/toxigen": lambda n: {"text": told(n), "toxicity_ai": 1.0 + n, "toxicity_human": 2.5},
    "webqs/webqs": lambda n: {"question": asked(n) + "?", "answers": [of(NAMES, n), of(NAMES, n) + " Bo", "clay"]},
    # One ending after several contexts.
    "winogrande/default": lambda n: {
        "sentence": f"{of(NAMES, n)} gave {of(NAMES, n + 1)} the {of(THINGS, n)} because _ had too many of them.",
        "option1": of(NAMES, n),
        "option2": of(NAMES, n + 1),
        "answer": "12"[n % 2],
    },
    "wsc273/default": winograd,
    # No context at all.
    "blimp/anaphor_gender_agreement": lambda n: {
        "sentence_good": f"{of(NAMES, n)} hid himself at the {of(PLACES, n)}.",
        "sentence_bad": f"{of(NAMES, n)} hid itself at the {of(PLACES, n)}.",
    },
    "crows_pairs/crows_pairs_english": lambda n: {
        "sent_more": f"People from the {of(PLACES, n)} lose every {of(THINGS, n)}.",
        "sent_less": f"People from the {of(PLACES, n + 1)} lose every {of(THINGS, n)}.",
    },
    "xnli/xnli_en": lambda n: {"premise": told(n)[:-1], "hypothesis": of(STORIES, n + 3), "label": n % 3},
    # One continuation.
    "lambada/lambada_openai": lambda n: {"text": f"{told(n)} So ended the {of(THINGS, n)} of {of(NAMES, n)}"},
    "arithmetic/arithmetic_1dc": lambda n: {
        "context": f"Question: What is ({n} + 4) * 3?\nAnswer:",
        "completion": f" {(n + 4) * 3}",
    },
    # Whole texts.
    "wikitext/wikitext": lambda n: {
        "page": f" = {of(NAMES, n)} = \n \n {' '.join(told(n + k) for k in range(n * 2))} 4 @,@ 000 people \n"
    },
    "pile_10k/pile_10k": lambda n: {"text": "\n".join(told(n + k) for k in range(1 + n * 4))},
    # Generation.
    "gsm8k/gsm8k": worked,
    "gsm8k/gsm8k-cot": worked,
    "triviaqa/default": lambda n: {
        "question": asked(n),
        "answer": {"aliases": [f"The {of(THINGS, n)}", of(THINGS, n), "It"]},
    },
    "nq_open/nq_open": lambda n: {"question": asked(n).lower(), "answer": [f"the {of(PLACES, n)}", of(PLACES, n)]},
    "drop/default": dropped,
    "babi/babi": lambda n: {
        "passage": f"{of(NAMES, n)} went to the {of(PLACES, n)}.\n",
        "question": f"Where is {of(NAMES, n)}?",
        "answer": of(PLACES, n),
    },
    "unscramble/anagrams1": lambda n: {
        "context": f"Unscramble the word {of(THINGS, n)[::-1]}. It is =",
        "completion": of(THINGS, n),
    },
    "squad_completion/squad_completion": lambda n: {
        "text": f"  {told(n)} He mends the ",
        "value": f" {of(THINGS, n)} ",
    },
    "bbh/cot_fewshot/boolean_expressions": lambda n: {"input": "not " * n + "( True ) is", "target": "False"},
}


def splits(file: str) -> dict[str, list[Row]]:
    """Return a task's rows: those to evaluate as ``test``, those for its shots as ``train``."""
    rows = [ROWS[file](n) for n in range(EVALUATED + SHOTS)]
    return {"test": rows[:EVALUATED], "train": rows[EVALUATED:]}
