"""Pairs of a model's own solutions: which are chosen, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_lm import scripted_lm

from harness import HarnessError
from harness.methods import rollouts
from harness.methods.options import build
from harness.models.causal import CausalLM
from harness_critical_tokens import pairs, verify
from harness_critical_tokens.choosing import choose
from harness_critical_tokens.encoding import encode
from harness_critical_tokens.judging import Judge, Verdict, gold_of
from harness_critical_tokens.pairs import FILES, MakePairs
from harness_critical_tokens.pairs_file import read_pairs


def verdicts(answers: str) -> list[Verdict]:
    """Return verdicts on solutions with one-letter answers; a capital letter is right, a full stop no answer."""
    return [
        Verdict(letter, None if letter == "." else letter, letter.isupper(), is_unfinished=letter == ".")
        for letter in answers
    ]


def chosen(answers: str, seed: int = 0) -> tuple[Any, Any, tuple[int, ...]]:
    found = choose(verdicts(answers), rule="latex", seed=seed, question=3)
    return found.right, found.wrong, found.negatives


def test_the_most_frequent_answers_make_a_pair_and_none_does_not_count() -> None:
    right, wrong, _ = chosen("....xXyyYYz")
    assert right in {8, 9} and wrong in {6, 7}
    assert {chosen("xxAA", seed=seed)[0] for seed in range(20)} == {2, 3}
    assert chosen("xxAA", 4) == chosen("xxAA", 4)


def test_questions_without_right_or_wrong_answers_make_none() -> None:
    assert chosen("xy..")[0] is None and chosen("xy..")[1] == 0
    assert chosen("AA.")[:2] != (None, None) and chosen("AA.")[1] is None
    assert chosen("...") == (None, None, ())


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        ("xxxxyyyzz", [{0, 1, 2, 3}, {4, 5, 6}]),  # four of nine are not half
        ("xxxxxyyyz", [{0, 1, 2, 3, 4}]),
        ("xyz", [{0}]),  # singletons as the first of all alone
        ("xxyzuvw", [{0, 1}]),
    ],
)
def test_half_of_the_wrong_solutions_are_covered(answers: str, taken: list[set[int]]) -> None:
    negatives = chosen(answers)[2]
    assert len(negatives) == len(taken)
    assert all(number in numbers for number, numbers in zip(negatives, taken, strict=True))


def test_a_response_is_judged_with_all_it_began_with(tokenizer: Any) -> None:
    judge = Judge(tokenizer, "18", "number")
    ids = tokenizer.encode(" The answer is 18.\n\nQuestion: 5", add_special_tokens=False)
    assert judge(ids, is_cut=True).is_right and judge(ids, is_cut=True).answer == "18"
    assert judge(ids[:2], is_cut=True).is_unfinished and not judge(ids[:2], is_cut=False).is_unfinished
    assert gold_of("so 5 #### 18", "", "number") == "18" and gold_of(None, "It is 4", "number") == "4"
    assert gold_of(None, "no number", "number") is None and gold_of("\\frac12", "", "latex") == "\\frac12"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [(1e-05, "0.00001"), (2.5e-07, "0.00000025"), (1e16, "1" + "0" * 16), (-0.5, "-0.5"), (18, "18")],
)
@pytest.mark.parametrize("rule", ["number", "latex"])
def test_an_answer_that_is_a_number_is_read_whole(answer: float, gold: str, rule: str) -> None:
    """JSON and Python write small and large ones with an exponent, of which a verifier would read the last digits."""
    assert gold_of(answer, "", rule) == gold
    assert verify.is_right(f"The answer is {gold}.", gold_of(answer, "", rule) or "", rule)


def coin(tokenizer: Any) -> CausalLM:
    """Return a model that answers ``7`` or ``3``, evenly, and ``3`` more seldom behind ``Z``."""
    [colon, question, seven, three] = (tokenizer.encode(letter, add_special_tokens=False)[0] for letter in ":Z73")
    return scripted_lm(tokenizer, {colon: {seven: 0.5, three: 0.5}, question: {three: 1.0}})


def made(
    lm: CausalLM, folder: Path, *rows: dict[str, Any], **options: Any
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    file, workdir = folder / "questions.jsonl", folder / "work"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    workdir.mkdir(exist_ok=True)
    settings = {"samples": 12, "temperature": 1.0, "prompt": "{question}", "max_new_tokens": 4} | options
    assert MakePairs(file, **settings).apply(lm, seed=0, workdir=workdir) is lm
    lines = {name: (workdir / name).read_text(encoding="utf-8").splitlines() for name in FILES}
    report = json.loads((workdir / "report.json").read_text(encoding="utf-8"))
    return {name: [json.loads(line) for line in several] for name, several in lines.items()}, report


def test_own_solutions_become_pairs_that_the_other_methods_read(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"question": "K:", "answer": "so #### 7"}, {"question": "KZ", "answer": 7}, {"question": "K:", "answer": 5}
    files, report = made(coin(tokenizer), tmp_path, *rows)
    assert files["pairs.jsonl"] == [
        {"question": 0, "prompt": "K:", "chosen": "7", "rejected": "3", "answer": "7", "rejected_answer": "3"}
    ]
    assert [row["answer"] for row in files["right.jsonl"]] == ["7"]
    assert {row["question"] for row in files["wrong.jsonl"]} == {0, 1, 2}
    assert len(files["trajectories.jsonl"]) == 36
    assert {row["right"] for row in files["trajectories.jsonl"] if row["question"] == 1} == {False}
    assert report["pairs"] == 1 and report["questions_without_right"] == 2
    assert report["rate"] == sum(row["right"] for row in files["trajectories.jsonl"]) / 36 < 0.25
    assert f"solves {report['rate']:.0%} of its attempts" in capsys.readouterr().err
    assert read_pairs(tmp_path / "work" / "pairs.jsonl").read == 1


def test_a_blank_behind_the_prompt_stands_in_no_file(tokenizer: Any, tmp_path: Path) -> None:
    files, _ = made(coin(tokenizer), tmp_path, {"question": "K", "answer": 7}, prompt="{question}: ")
    assert {row["prompt"] for name in FILES[1:] for row in files[name]} == {"K:"}


def test_each_question_draws_from_streams_of_its_own(tokenizer: Any, tmp_path: Path) -> None:
    """Property 24: what is beside a question does not change its solutions; equal questions have different ones."""
    question = {"question": "K:", "answer": 7}
    (tmp_path / "alone").mkdir()
    alone, _ = made(coin(tokenizer), tmp_path / "alone", question)
    both, _ = made(coin(tokenizer), tmp_path, question, question)
    texts = [row["response"] for row in both["trajectories.jsonl"]]
    assert texts[:12] == [row["response"] for row in alone["trajectories.jsonl"]]
    assert texts[:12] != texts[12:]


def test_no_pair_at_all_is_told_and_the_solutions_are_kept(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, report = made(coin(tokenizer), tmp_path, {"question": "KZ", "answer": 7})
    assert files["pairs.jsonl"] == [] and len(files["trajectories.jsonl"]) == 12 and report["pairs"] == 0
    assert "no question has both a right and a wrong solution" in capsys.readouterr().err


def test_no_wrong_solution_at_all_makes_no_pair_and_is_counted(tokenizer: Any, tmp_path: Path) -> None:
    [colon, seven] = (tokenizer.encode(letter, add_special_tokens=False)[0] for letter in ":7")
    files, report = made(scripted_lm(tokenizer, {colon: {seven: 1.0}}), tmp_path, {"question": "K:", "answer": 7})
    assert files["pairs.jsonl"] == files["wrong.jsonl"] == [] and len(files["right.jsonl"]) == 1
    assert report["questions_without_wrong"] == 1 and report["rate"] == 1


def test_solutions_that_are_cut_are_wrong_and_told_of(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [colon, letter] = (tokenizer.encode(letter, add_special_tokens=False)[0] for letter in ":Z")
    lm = scripted_lm(tokenizer, {colon: {letter: 1.0}, letter: {colon: 1.0}})
    files, report = made(lm, tmp_path, {"question": "K:", "answer": 7}, max_new_tokens=3)
    assert report["unfinished"] == 1 and report["rate"] == 0 and files["wrong.jsonl"] == []
    assert "100% of the solutions were cut before they gave an answer" in capsys.readouterr().err


def test_a_question_that_leaves_no_room_is_left_out_and_named(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm, long = coin(tokenizer), {"question": "Q" * 40 + ":", "answer": 7}
    lm.model.config.rope_parameters |= {"rope_type": "dynamic", "original_max_position_embeddings": 20}
    files, report = made(lm, tmp_path, long, {"question": "K:", "answer": 7}, long)
    assert {row["question"] for row in files["trajectories.jsonl"]} == {1}
    assert report["left_out"] == {"more tokens than the model's context": [0, 2]} and report["questions"] == 1
    assert "questions left out: 2 with more tokens" in capsys.readouterr().err
    with pytest.raises(HarnessError, match=r"no question of '.*' leaves room for a solution"):
        made(lm, tmp_path / "work", long)


def test_interrupted_sampling_goes_on_from_the_questions_that_were_done(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is to the byte what an undisturbed run writes."""
    monkeypatch.setattr(pairs, "PORTION", 1)
    lm, rows = coin(tokenizer), [{"question": "K:", "answer": 7}, {"question": "KZ", "answer": 3}]
    undisturbed, _ = made(lm, tmp_path, *rows)
    whole, asked = rollouts.samples, []

    def samples(lm: Any, prompts: Any, *, names: Any, **more: Any) -> Any:
        asked.extend(names)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return whole(lm, prompts, names=names, **more)

    monkeypatch.setattr(rollouts, "samples", samples)
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(KeyboardInterrupt):
        made(lm, again, *rows)
    assert list((again / "work").iterdir()) == []
    assert made(lm, again, *rows)[0] == undisturbed
    assert asked == ["question 0", "question 1", "question 1"]


def sentencepiece_tokenizer() -> Any:
    """Return a tokenizer that puts a blank before a text and takes it from the decoded one, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["</s>", "<unk>", "\u2581", "K", ":", "7", "3", "\u2581K", "\u25817", "\u25813"]
    merges = [("\u2581", "K"), ("\u2581", "7"), ("\u2581", "3")]
    backend = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def test_prompt_and_response_are_the_true_text_where_a_decoder_drops_a_first_blank(tmp_path: Path) -> None:
    spelled = sentencepiece_tokenizer()
    colon, seven, three = (spelled.convert_tokens_to_ids(piece) for piece in (":", "\u25817", "3"))
    assert spelled.decode([seven]) == "7"
    lm = scripted_lm(spelled, {colon: {seven: 0.5, three: 0.5}})
    files, _ = made(lm, tmp_path, {"question": "K:", "answer": 7})
    [pair] = files["pairs.jsonl"]
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("K:", " 7", "3")
    assert {row["response"] for row in files["trajectories.jsonl"]} == {" 7", "3"}
    for side, token in (("chosen", seven), ("rejected", three)):
        assert encode(lm, pair["prompt"], pair[side], ends=False).response_ids == [token]


@pytest.mark.parametrize(
    "answer", ["\\boxed{7", "so \\boxed{\\frac{1}{2}", "The answer is \\boxed{7", "\\boxed{ }", " "]
)
def test_a_gold_answer_whose_box_is_not_closed_is_refused_by_its_line(tmp_path: Path, answer: str) -> None:
    """It would make every sample wrong."""
    file = tmp_path / "questions.jsonl"
    rows = [{"question": "K:", "answer": "\\boxed{7}"}, {"question": "K:", "answer": answer}]
    file.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with pytest.raises(HarnessError, match=r"line 3 of .* has no answer that verifier=latex reads; correct it"):
        MakePairs(file, verifier="latex").fingerprint()


def test_an_empty_question_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").touch()
    with pytest.raises(HarnessError, match="is empty: it holds no row"):
        MakePairs(tmp_path / "questions.jsonl").fingerprint()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"question": "K:"}, "line 1 of .* has no 'answer'; it has question"),
        ({"question": "K:", "answer": "seven"}, "line 1 of .* has no answer that verifier=number reads"),
        ({"question": " ", "answer": 7}, "line 1 of .* has an empty question"),
    ],
)
def test_questions_without_answers_are_refused_before_anything_is_drawn(
    tmp_path: Path, row: dict[str, Any], sentence: str
) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(HarnessError, match=sentence):
        MakePairs(file).fingerprint()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"samples": 1}, "samples is 1; it has to be 2 or more"),
        ({"temperature": 0}, "has to be above 0, or all solutions of a question are the same"),
        ({"prompt": "Question:"}, "prompt has no {question}"),
    ],
)
def test_options_that_no_run_can_use_are_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HarnessError, match=sentence):
        build(MakePairs, {"questions_file": str(tmp_path), **options})
