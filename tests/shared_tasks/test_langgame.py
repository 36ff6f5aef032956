"""LangGame: every question has one right word, the same seed gives the same questions, and lm-eval scores them."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM

from harness import HarnessError
from harness_tasks.langgame import generate, load
from harness_tasks.words import WORDS

TYPES = ("most_of_letter", "contains", "starts_with", "ends_with", "longest", "shortest")
CLUE_TYPES = ("contains", "starts_with", "ends_with")

NOUN = "(?:word||string|option|choice|option word|option string)"
PHRASE = "the (?:possible |available )?(?:options|choices|option words|option strings)"
DEMAND = (
    r"(?:has the most letter '(?P<letter>[a-z])'s|contains '(?P<contains>\S+)'|starts with '(?P<starts_with>\S+)'"
    r"|ends with '(?P<ends_with>\S+)'|is the (?P<longest>longest)|is the (?P<shortest>shortest))\?"
)
QUESTION = rf"(?P<opener>Which|What) (?:{NOUN}|of (?P<asked>{PHRASE})) {DEMAND}"
LIST = rf"(?:(?P<listed>[Tt]{PHRASE[1:]})(?: are)?|These are (?P<these>{PHRASE})): \[ (?P<words>[^\]]+)\]\."
FORM = [re.compile(f"{QUESTION} {LIST} Answer:"), re.compile(f"{LIST} {QUESTION} Answer:")]


def parse(text: str) -> re.Match[str]:
    """Return the parts of a question, or fail."""
    found = [match for form in FORM if (match := form.fullmatch(text))]
    assert len(found) == 1, text
    return found[0]


def right_words(text: str) -> list[str]:
    """Return the words that satisfy the demand, by a rule of this test's own."""
    parts = parse(text).groupdict()
    words = parts["words"].split(", ")
    if parts["longest"] or parts["shortest"] or parts["letter"]:
        size = (lambda word: len(re.findall(parts["letter"], word))) if parts["letter"] else len
        best = min(map(size, words)) if parts["shortest"] else max(map(size, words))
        return [word for word in words if size(word) == best]
    if parts["contains"]:
        return [word for word in words if word.find(parts["contains"]) >= 0]
    if parts["starts_with"]:
        return [word for word in words if word[: len(parts["starts_with"])] == parts["starts_with"]]
    return [word for word in words if word[-len(parts["ends_with"]) :] == parts["ends_with"]]


def clue_of(text: str) -> str:
    parts = parse(text)
    return parts["contains"] or parts["starts_with"] or parts["ends_with"]


@pytest.fixture(scope="module")
def many() -> list[generate.Question]:
    return list(generate.questions(20_000, seed=11))


def test_every_question_has_exactly_one_right_word_at_the_stated_place(many):
    for question in many:
        assert set(question) == {"type", "question", "options", "answer_index"}
        assert right_words(question["question"]) == [question["options"][question["answer_index"]]]
        assert len(set(question["options"])) == 4 and set(question["options"]) <= set(WORDS)


def test_options_are_listed_in_the_order_of_the_text(many):
    assert all(parse(question["question"])["words"] == ", ".join(question["options"]) for question in many)


def test_the_type_is_the_one_that_is_asked(many):
    for question in many[:2000]:
        parts = parse(question["question"]).groupdict()
        asked = [name for name in TYPES if parts.get("letter" if name == "most_of_letter" else name)]
        assert asked == [question["type"]]


def test_types_are_drawn_equally_often(many):
    error = math.sqrt(1 / 6 * 5 / 6 / len(many))
    shares = {name: count / len(many) for name, count in Counter(question["type"] for question in many).items()}
    assert set(shares) == set(TYPES)
    assert all(abs(share - 1 / 6) < 5 * error for share in shares.values())


def test_the_right_word_is_at_every_place_equally_often(many):
    error = math.sqrt(1 / 4 * 3 / 4 / len(many))
    places = Counter(question["answer_index"] for question in many)
    assert all(abs(places[place] / len(many) - 1 / 4) < 5 * error for place in range(4))


def test_options_keep_their_distance_in_letters_and_lengths(many):
    for question in many:
        right = question["options"][question["answer_index"]]
        wrong = [word for word in question["options"] if word != right]
        match question["type"]:
            case "most_of_letter":
                letter = parse(question["question"])["letter"]
                assert right.count(letter) >= 2 and all(word.count(letter) <= 1 for word in wrong)
            case "longest":
                assert len(right) >= 7 and all(len(word) <= 4 for word in wrong)
            case "shortest":
                assert len(right) <= 3 and all(len(word) >= 6 for word in wrong)
            case _:
                assert 1 <= len(clue_of(question["question"])) <= 3


def test_all_wordings_of_the_paper_occur(many):
    texts = [question["question"] for question in many]
    starts = Counter(text.split(" ")[0] for text in texts)
    assert set(starts) == {"Which", "What", "The", "These"}
    assert any(text.startswith("Which  ") for text in texts), "the empty noun leaves two spaces"
    for phrase in ("options:", "choices are:", "These are the available option words:", "The possible option strings:"):
        assert any(phrase in text for text in texts)
    part = sum(text[:2] == "Wh" for text in texts) / len(texts)
    assert abs(part - 1 / 2) < 5 * math.sqrt(1 / 4 / len(texts))


def test_which_of_names_the_options_as_the_list_does(many):
    matches = [parse(question["question"]) for question in many]
    assert all(
        match["asked"] == (match["these"] or match["listed"].lower()) for match in matches if match["asked"] is not None
    )


def test_the_published_examples_have_the_form_this_test_checks():
    # Two questions made by the paper's own generator: the form above is the paper's, not only ours.
    for text, right in (
        ("Which  starts with 'e'? The available choices: [ floor, direct, either, suit]. Answer:", "either"),
        ("These are the possible options: [ tail, brother, fire, month]. What string contains 're'? Answer:", "fire"),
    ):
        assert right_words(text) == [right]


def test_a_seed_gives_the_same_bytes_for_ever():
    text = "\n".join(json.dumps(question) for question in generate.questions(1000, seed=1))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "67525ead01d55e137fc19e6b76c98f1200f119b28bed2e4ed8bbe30bdccd34c1"
    )


@pytest.mark.parametrize("clue", ["any", "short", "long"])
def test_fewer_questions_are_the_beginning_of_more(clue):
    assert list(generate.questions(200, seed=3, clue=clue))[:50] == list(generate.questions(50, seed=3, clue=clue))


@pytest.mark.parametrize(("seed", "other"), [(1, 2), (1, -1), (0, 10**30)])
def test_another_seed_gives_other_questions(seed, other):
    first = {question["question"] for question in generate.questions(200, seed=seed)}
    assert first.isdisjoint(question["question"] for question in generate.questions(200, seed=other))


def test_global_random_state_is_left_alone():
    random.seed(5)
    before = random.getstate()
    list(generate.questions(20, seed=5))
    assert random.getstate() == before


@pytest.mark.parametrize("question_type", CLUE_TYPES)
def test_short_and_long_clues_are_divided_by_half_the_right_word(question_type):
    lengths = set()
    for clue in ("short", "long"):
        for question in generate.questions(2000, seed=4, clue=clue, types=(question_type,)):
            right = question["options"][question["answer_index"]]
            letters = len(clue_of(question["question"]))
            assert question["type"] == question_type and right_words(question["question"]) == [right]
            assert 2 * letters <= len(right) if clue == "short" else len(right) < 2 * letters < 2 * len(right)
            lengths.add((clue, letters))
    assert ("short", 5) in lengths and ("long", 10) in lengths, "the limit of three letters is lifted"


@pytest.mark.parametrize("clue", ["short", "long"])
def test_only_types_with_a_clue_have_short_and_long_ones(clue):
    assert {question["type"] for question in generate.questions(200, seed=6, clue=clue)} == set(CLUE_TYPES)
    with pytest.raises(HarnessError, match=f"there is no question type 'longest' with clue '{clue}'; choose from con"):
        generate.questions(1, seed=6, clue=clue, types=("longest",))


@pytest.mark.parametrize("count", [-1, 2.0, "3", None, True])
def test_a_count_that_is_none_is_refused_at_once(count):
    with pytest.raises(HarnessError, match=r"the number of questions is .*; give a whole number, 0 or more"):
        generate.questions(count, seed=1)


def test_an_unknown_clue_type_or_seed_is_refused_with_what_there_is():
    with pytest.raises(HarnessError, match="there is no clue 'medium'; choose from any, short, long"):
        generate.questions(1, seed=1, clue="medium")
    with pytest.raises(HarnessError, match="no question type 'rhymes' with clue 'any'; choose from most_of_letter"):
        generate.questions(1, seed=1, types=("rhymes",))
    with pytest.raises(HarnessError, match=r"the seed is 0\.5; give a whole number"):
        generate.questions(1, seed=0.5)


def test_training_examples_leave_out_what_the_tasks_ask():
    # Few words are three letters or fewer, so their questions meet soonest: the seed of the tasks is the hardest case.
    asked = {
        question["question"]
        for name in TYPES
        for question in generate.questions(200, seed=generate.EVALUATION_SEED, types=(name,))
    }
    examples = list(generate.training_examples(3000, seed=1))
    assert len(examples) == 3000
    assert asked.isdisjoint(example["prompt"] for example in examples)


def test_a_training_question_that_a_task_asks_is_skipped(monkeypatch):
    first, second = (question["question"] for question in generate.questions(2, seed=1))
    monkeypatch.setattr(generate, "_evaluation_texts", lambda: {first})
    assert [example["prompt"] for example in generate.training_examples(1, seed=1)] == [second]


def test_the_command_writes_prompt_answer_and_type(tmp_path):
    output = tmp_path / "train.jsonl"
    assert generate.main(["--count", "30", "--seed", "7", "--clue", "short", "--output", str(output)]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 30
    for row in rows:
        assert set(row) == {"prompt", "answer", "type"} and row["type"] in CLUE_TYPES
        assert [row["answer"]] == [f" {word}" for word in right_words(row["prompt"])]
    assert list(tmp_path.iterdir()) == [output], "no temporary file is left"


def test_the_command_gives_the_same_file_in_another_process(tmp_path):
    outputs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for output in outputs:
        command = [sys.executable, "-m", "harness_tasks.langgame.generate", "--count", "20", "--output", str(output)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert outputs[0].read_bytes() == outputs[1].read_bytes() != b""


def test_a_mistake_ends_with_one_sentence_and_leaves_the_old_file(tmp_path, capsys):
    output = tmp_path / "train.jsonl"
    output.write_text("old", encoding="utf-8")
    assert generate.main(["--count", "-1", "--output", str(output)]) == 2
    assert "the number of examples is -1; give a whole number, 0 or more" in capsys.readouterr().err
    assert generate.main(["--count", "1", "--output", str(output / "train.jsonl")]) == 2
    assert "could not be written (" in capsys.readouterr().err
    assert output.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [output]


def test_help_teaches_the_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        generate.main(["--help"])
    assert (
        "python -m harness_tasks.langgame.generate --count 1000 --seed 1 --output train.jsonl"
        in capsys.readouterr().out
    )


def test_generators_need_neither_torch_nor_lm_eval():
    code = (
        "import sys, harness_tasks, harness_tasks.langgame.generate, harness_tasks.addition.generate\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


class Solver(LM):
    """Finds the right word by the rule of this test, and finds every other continuation unlikely."""

    def loglikelihood(self, requests):
        solved = []
        for request in requests:
            context, continuation = request.args
            likely = continuation == f" {right_words(context.split(chr(10))[-1])[0]}"
            solved.append((-1.0 if likely else -9.0, likely))
        return solved

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


GROUPS = {
    "langgame": [f"langgame_{name}" for name in TYPES],
    "langgame_ood": [f"langgame_ood_{name}" for name in CLUE_TYPES],
}


@pytest.fixture(scope="module")
def results(evaluate, tiny_lm) -> dict[str, Any]:
    return evaluate(tiny_lm, *GROUPS, metadata={"questions": 10, "seed": 3})


def test_tasks_report_both_metrics_with_their_errors(results):
    for task in [name for names in GROUPS.values() for name in names]:
        scores = results["results"][task]
        assert scores["acc_above_chance,none"] == pytest.approx((4 * scores["acc,none"] - 1) / 3)
        assert scores["acc_above_chance_stderr,none"] == pytest.approx(4 / 3 * scores["acc_stderr,none"])
        assert scores["sample_len"] == 10
        assert results["versions"][task] == 1.0
        assert results["higher_is_better"][task] == {"acc": True, "acc_above_chance": True}


def test_a_group_is_the_mean_of_its_tasks(results):
    for group, tasks in GROUPS.items():
        for metric in ("acc,none", "acc_above_chance,none"):
            parts = [results["results"][task][metric] for task in tasks]
            assert results["groups"][group][metric] == pytest.approx(sum(parts) / len(parts))
        assert isinstance(results["groups"][group]["acc_stderr,none"], float)


def test_two_runs_give_the_same_scores(results, evaluate, tiny_lm):
    again = evaluate(tiny_lm, *GROUPS, metadata={"questions": 10, "seed": 3})
    assert again["results"] == results["results"]
    assert [sample["resps"] for sample in again["samples"]["langgame_contains"]] == [
        sample["resps"] for sample in results["samples"]["langgame_contains"]
    ]


def test_the_model_sees_the_question_and_one_space_before_each_word(results):
    for sample in results["samples"]["langgame_ends_with"]:
        assert [arguments[0] for arguments in sample["arguments"]] == [sample["doc"]["question"]] * 4
        assert [arguments[1] for arguments in sample["arguments"]] == [f" {word}" for word in sample["doc"]["options"]]


def test_a_solver_scores_one(evaluate):
    solved = evaluate(Solver(), *GROUPS, metadata={"questions": 20})
    for group in GROUPS:
        assert solved["groups"][group]["acc,none"] == solved["groups"][group]["acc_above_chance,none"] == 1.0


def test_few_shot_examples_come_from_other_questions_and_are_the_same_for_all(evaluate):
    run = evaluate(Solver(), "langgame_longest", num_fewshot=2, limit=5)
    contexts = [sample["arguments"][0][0].split("\n\n") for sample in run["samples"]["langgame_longest"]]
    assert {len(context) for context in contexts} == {3}
    assert len({tuple(context[:2]) for context in contexts}) == 1
    for shot in contexts[0][:2]:
        question, answer = shot.rsplit(" ", 1)
        assert [answer] == right_words(question)
    asked = load.make(question_type="longest", **METADATA)["test"]["question"]
    assert not set(asked) & {shot.rsplit(" ", 1)[0] for shot in contexts[0][:2]}
    assert run["results"]["langgame_longest"]["acc,none"] == 1.0


METADATA = {"seed": generate.EVALUATION_SEED, "questions": generate.EVALUATION_QUESTIONS}


def test_without_metadata_the_task_asks_what_the_generator_holds_back(evaluate):
    run = evaluate(Solver(), "langgame_shortest")
    expected = generate.questions(METADATA["questions"], seed=METADATA["seed"], types=("shortest",))
    assert [sample["doc"]["question"] for sample in run["samples"]["langgame_shortest"]] == [
        question["question"] for question in expected
    ]


@pytest.mark.parametrize("metadata", [{"questions": 0}, {"questions": "many"}, {"seed": 1.5}])
def test_bad_metadata_is_refused_by_name(evaluate, metadata):
    [name] = metadata
    with pytest.raises(HarnessError, match=f"{name} in the task's metadata is .*; give a whole number"):
        evaluate(Solver(), "langgame_contains", metadata=metadata)


def test_equal_scores_are_no_reason_to_prefer_the_right_word_and_nan_is_no_hit():
    doc = {"type": "longest", "question": "", "options": ["a", "b", "c", "d"], "answer_index": 0}
    hit, miss = {"acc": 1.0, "acc_above_chance": 1.0}, {"acc": 0.0, "acc_above_chance": pytest.approx(-1 / 3)}
    assert load.score(doc, [(-1.0, True)] * 4) == hit
    assert load.score({**doc, "answer_index": 2}, [(-1.0, True)] * 4) == miss
    assert load.score(doc, [(math.nan, False)] * 4) == miss
    assert load.score(doc, [(-1.0, True), (math.nan, False), (-2.0, False), (-2.0, False)]) == miss


def test_every_task_file_of_the_folder_is_found(task_folder: Path):
    from lm_eval.tasks import TaskManager

    # A YAML error hides a task without a word, so count them.
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)
    files = [path.stem for path in task_folder.rglob("*.yaml") if not path.stem.startswith("_")]
    assert set(files) == set(manager.all_tasks) and len(files) == len(set(files))
