"""Addition: the answer is the reversed sum, training never meets the test, and prompts lie end to end."""

from __future__ import annotations

import json
import random
import re

import pytest
from lm_eval.api.model import LM

from harness import HarnessError
from harness_tasks.addition import generate, load


def reversed_sum(question: str) -> str:
    match = re.fullmatch(r"\$([1-9]\d\d)\+(0|[1-9]\d{0,2})=", question)
    assert match, question
    return "".join(reversed(str(int(match[1]) + int(match[2]))))


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_answer_is_the_reversed_sum(part):
    asked = list(generate.questions(5000, seed=1, part=part))
    for question in asked:
        assert set(question) == {"left", "right", "question", "answer"}
        assert question["question"] == f"${question['left']}+{question['right']}="
        assert question["answer"] == reversed_sum(question["question"])
    assert len({question["question"] for question in asked}) == 5000, "no question twice"


def test_the_published_examples_have_this_form():
    for question, answer in (("$240+891=", "1311"), ("$696+853=", "9451"), ("$900+875=", "5771")):
        assert reversed_sum(question) == answer


def test_operands_cover_their_range():
    asked = list(generate.questions(20_000, seed=2))
    assert {question["left"] for question in asked} == set(range(100, 1000))
    assert {question["right"] for question in asked} == set(range(1000))


def test_a_pair_belongs_to_one_part_whatever_the_seed():
    test = {question["question"] for question in generate.questions(5000, seed=1, part="test")}
    assert test.isdisjoint(question["question"] for question in generate.questions(50_000, seed=9, part="train"))


def test_the_parts_have_as_many_pairs_as_stated():
    sizes = {"train": 0, "test": 0}
    for left in range(100, 1000):
        for right in range(1000):
            sizes[generate._part_of(left, right)] += 1
    assert sizes == generate.PAIRS and sum(sizes.values()) == 900_000


@pytest.mark.slow
def test_a_whole_part_can_be_drawn():
    assert len({question["question"] for question in generate.questions(89_948, seed=1, part="test")}) == 89_948


def test_more_than_a_part_has_is_refused():
    with pytest.raises(HarnessError, match="89949 questions are asked for, but only 89948 pairs are for test"):
        generate.questions(89_949, seed=1, part="test")


def test_a_seed_decides_the_questions_and_fewer_are_the_beginning_of_more():
    random.seed(5)
    before = random.getstate()
    first = [question["question"] for question in generate.questions(100, seed=3)]
    assert first[:40] == [question["question"] for question in generate.questions(40, seed=3)]
    assert first != [question["question"] for question in generate.questions(100, seed=-3)]
    assert first[:3] == ["$895+201=", "$227+240=", "$659+576="]
    assert random.getstate() == before


def test_bad_arguments_are_refused():
    with pytest.raises(HarnessError, match="the number of questions is -1; give a whole number, 0 or more"):
        generate.questions(-1, seed=1)
    with pytest.raises(HarnessError, match="there is no part 'dev'; choose from train, test"):
        generate.questions(1, seed=1, part="dev")
    with pytest.raises(HarnessError, match="the seed is None; give a whole number"):
        generate.questions(1, seed=None)


def test_the_command_writes_examples_that_end_in_a_dollar(tmp_path):
    output = tmp_path / "sums.jsonl"
    assert generate.main(["--count", "25", "--seed", "7", "--output", str(output)]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 25
    assert all(row["answer"] == reversed_sum(row["prompt"]) + "$" for row in rows)
    assert {row["type"] for row in rows} == {"addition_3digit"}


class Adder(LM):
    """Adds, and goes on writing as a trained model would."""

    def generate_until(self, requests):
        return [reversed_sum("$" + request.args[0].rsplit("$", 1)[1]) + "$123+4=" for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def test_the_task_scores_an_adder_with_one(evaluate):
    run = evaluate(Adder(), "addition_3digit")
    assert run["results"]["addition_3digit"]["exact_match,none"] == 1.0
    assert run["results"]["addition_3digit"]["sample_len"] == 500
    assert {sample["arguments"][0][0] for sample in run["samples"]["addition_3digit"]} == {
        question["question"] for question in generate.questions(500, seed=2025, part="test")
    }
    arguments = run["samples"]["addition_3digit"][0]["arguments"][0]
    assert arguments[1] == {"until": ["$"], "do_sample": False, "repetition_penalty": 1.0, "max_gen_toks": 20}


def test_few_shot_examples_lie_end_to_end(evaluate):
    run = evaluate(Adder(), "addition_3digit", num_fewshot=2, limit=3)
    for sample in run["samples"]["addition_3digit"]:
        prompt = sample["arguments"][0][0]
        match = re.fullmatch(r"(\$\d+\+\d+=)(\d+)(\$\d+\+\d+=)(\d+)(\$\d+\+\d+=)", prompt)
        assert match, prompt
        assert [reversed_sum(match[1]), reversed_sum(match[3])] == [match[2], match[4]]
        assert match[5] == sample["doc"]["question"]
    assert run["results"]["addition_3digit"]["exact_match,none"] == 1.0


def test_a_model_scores_the_same_twice(evaluate, tiny_lm):
    runs = [evaluate(tiny_lm, "addition_3digit", metadata={"questions": 8, "seed": 4}) for _ in range(2)]
    assert runs[0]["results"] == runs[1]["results"]
    assert isinstance(runs[0]["results"]["addition_3digit"]["exact_match_stderr,none"], float)


def test_a_penalty_of_the_checkpoint_does_not_change_the_greedy_text(evaluate, tiny_lm, monkeypatch):
    run = {"metadata": {"questions": 8, "seed": 4}}
    plain = evaluate(tiny_lm, "addition_3digit", **run)["samples"]["addition_3digit"]
    monkeypatch.setattr(tiny_lm.model.generation_config, "repetition_penalty", 9.0)
    penalised = evaluate(tiny_lm, "addition_3digit", **run)["samples"]["addition_3digit"]
    assert [sample["resps"] for sample in penalised] == [sample["resps"] for sample in plain]


@pytest.mark.parametrize(
    ("reply", "hit"),
    [("1311", 1), (" 1311 $2+3=", 1), ("1311$", 1), ("13115", 0), ("=1311", 0), ("", 0), ("$1311", 0), ("1131", 0)],
)
def test_only_the_text_up_to_the_dollar_counts(reply, hit):
    doc = {"left": 240, "right": 891, "question": "$240+891=", "answer": "1311"}
    assert load.score(doc, [reply]) == {"exact_match": hit}
