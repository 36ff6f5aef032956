"""Critical tokens found by rollouts of a model whose probabilities are written down: rows, report, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scripted_lm import scripted_lm

from harness import HarnessError
from harness.methods.options import build
from harness.methods.parts import Parts
from harness.models.causal import CausalLM
from harness.models.identity import tensor_fingerprints
from harness.models.tokenizer_only import TokenizerOnly
from harness_critical_tokens import find, going_on, walking
from harness_critical_tokens.find import Find
from harness_critical_tokens.walking import enough_of

PROMPT, WRONG, RIGHT = "K:", "QZJX3", "Q7"
# After "Z" comes "7", the right answer, but for once in a while; the wrong solution goes on with "J", and is lost.
SURE = {":": {"Q": 1.0}, "Q": {"Z": 1.0}, "Z": {"7": 1.0}, "J": {"X": 1.0}, "X": {"3": 1.0}}


def scripted(tokenizer: Any, script: dict[str, dict[str, float]], **settings: Any) -> CausalLM:
    """Return a model of one-letter tokens; after others comes end-of-text."""
    ids = {}
    for letter in {letter for last, following in script.items() for letter in (last, *following)}:
        [ids[letter]] = tokenizer.encode(letter, add_special_tokens=False)
    numbers = {ids[last]: {ids[n]: share for n, share in following.items()} for last, following in script.items()}
    return scripted_lm(tokenizer, numbers, **settings)


def pairs_file(folder: Path, *rows: dict[str, Any]) -> Path:
    usual = {"prompt": PROMPT, "chosen": RIGHT, "rejected": WRONG, "answer": 7}
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(usual | row) + "\n" for row in rows or ({},)), encoding="utf-8")
    return file


def found(lm: CausalLM, folder: Path, *rows: dict[str, Any], **options: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the rows of rollouts.jsonl and the report."""
    workdir = folder / "work"
    workdir.mkdir()
    method = Find(pairs_file(folder, *rows), **({"rollouts": 8, "temperature": 1.0, "top_p": 1.0} | options))
    assert method.apply(lm, seed=0, workdir=workdir) is lm
    lines = (workdir / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], json.loads((workdir / "report.json").read_text(encoding="utf-8"))


def test_the_token_that_ruins_a_solution_is_found_and_replaced(tokenizer: Any, tmp_path: Path) -> None:
    lm = scripted(tokenizer, SURE)
    before = tensor_fingerprints(lm.model)
    [row], report = found(lm, tmp_path, keep_texts=True)
    assert row["counts"] == [8, 8, 0, 0, 0, None] and row["bare"] == 8
    assert (row["critical"], row["fallback"], row["drop"], row["n"], row["pair"]) == (2, None, 2, 8, 0)
    assert row["ids"] == [*tokenizer.encode(WRONG, add_special_tokens=False), tokenizer.eos_token_id]
    assert row["replacement"]["right"] == 8
    page = (tmp_path / "work" / "report.html").read_text(encoding="utf-8")
    assert ' title="J r=0/8">J</i>' in page and 'class="w10 k d"' in page
    assert row["replacement"]["pass_at"] == {str(k): 1.0 for k in (1, 2, 4, 8)}
    assert set(row["replacement"]["kept_pass_at"].values()) == {0.0}
    assert {text for each in row["texts"] for text in each["texts"]} == {"QZ7", WRONG}
    assert report["critical"] == 1 and report["rate_from_question"] == 1.0 and report["unfinished"] == 0
    assert round(report["rate_may_still_be"], 4) == 0.3123
    [critical] = (tmp_path / "work" / "critical_tokens.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(critical) | {"rate_may_still_be": 0} == {
        "pair": 0, "critical": 2, "fallback": None, "n": 8, "id": row["ids"][2], "text": "J", "right_before": 8,
        "right_with": 0, "rate_may_still_be": 0, "right_with_another": 8,
    }  # fmt: skip
    assert tensor_fingerprints(lm.model) == before


def test_the_quick_walk_finds_the_same_token(tokenizer: Any, tmp_path: Path) -> None:
    """Property 21: ``quick`` and ``full`` give the same critical token on deterministic fakes; the last is not sampled."""
    lm = scripted(tokenizer, SURE)
    [row], report = found(lm, tmp_path, mode="quick")
    assert row["critical"] == 2 and row["settled"] == 1
    assert row["counts"] == [None, 1, 0, 0, 0, None]  # one of eight is enough: a bound
    assert row["bare"] == 8 and row["drop"] is None and row["fallback"] is None
    # "Q", "QZ" and what "J", "X", "3" come after: of the bare question and three prefixes all rollouts were counted, of "QZ" not.
    assert report["mode"] == "quick" and report["prefixes"] == {"counted": 4, "bounds": 1, "not_asked": 1}
    assert report["rollouts_uncounted"] == row["uncounted"]["rollouts"] >= 1
    assert report["rollouts_made"] == row["made"] + row["uncounted"]["rollouts"]
    assert report["rollouts_saved_by_the_end"] == 2 * 8 - row["uncounted"]["rollouts"]
    assert report["new_tokens"] == row["new_tokens"] + row["uncounted"]["new_tokens"] > row["new_tokens"]
    [critical] = (tmp_path / "work" / "critical_tokens.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(critical)["right_before_is_a_bound"] is True


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_a_solution_that_can_still_come_out_right_has_no_critical_token(
    tokenizer: Any, tmp_path: Path, mode: str
) -> None:
    lm = scripted(tokenizer, SURE | {"3": {":": 1.0}})  # "QZJX3:QZ7"
    [row], report = found(lm, tmp_path, mode=mode)
    assert row["critical"] is None and "replacement" not in row
    assert report["critical"] == 0 and report["pass_at"] is None


def test_another_seed_draws_other_rollouts_and_the_same_one_the_same(tokenizer: Any, tmp_path: Path) -> None:
    """Property 24: same seed, same counts, whatever the batch size; other seed, other texts."""
    script = {letter: {"Q": 0.1, "Z": 0.1, "J": 0.1, "X": 0.1, "7": 0.3, "3": 0.3} for letter in ":QZJX"}
    rows = []
    for number, (seed, size) in enumerate(((0, "auto"), (0, 1), (1, "auto"))):
        lm = scripted(tokenizer, script, batch_size=size, dtype=torch.float64)
        (tmp_path / str(number)).mkdir()
        method = Find(pairs_file(tmp_path), rollouts=12, temperature=1.0, top_p=1.0)
        method.apply(lm, seed=seed, workdir=tmp_path / str(number))
        rows.append((tmp_path / str(number) / "rollouts.jsonl").read_text(encoding="utf-8"))
    assert rows[0] == rows[1] != rows[2]


def test_work_that_is_done_is_not_done_again(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = scripted(tokenizer, SURE)
    rows, _ = found(lm, tmp_path)
    monkeypatch.setattr(walking, "walk", lambda *_: pytest.fail("it was done"))
    Find(pairs_file(tmp_path), rollouts=8).apply(lm, seed=0, workdir=tmp_path / "work")
    assert len(rows) == 1


def test_a_policy_that_seldom_solves_is_told_of_with_its_rate(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found(scripted(tokenizer, SURE | {"Z": {"3": 1.0}}), tmp_path)
    assert "solves 0% of the questions" in capsys.readouterr().err


def test_rollouts_that_are_cut_are_wrong_and_told_of(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = scripted(tokenizer, SURE | {"Z": {"Q": 1.0}})  # round and round
    [row], report = found(lm, tmp_path, max_new_tokens=3)
    assert row["unfinished"] == 3 * 8 and report["unfinished"] == 3 / 6 and row["counts"][0] == 0
    assert "50% of the rollouts were cut" in capsys.readouterr().err


def test_pairs_that_cannot_be_walked_along_are_counted(tokenizer: Any, tmp_path: Path) -> None:
    """Equal answers, no right answer anywhere, a rejected response that is right, one beyond the context."""
    rows, report = found(
        scripted(tokenizer, SURE, max_length=40), tmp_path,
        {}, {"rejected": "QZ7"}, {"answer": None, "chosen": "Q"}, {"rejected": "QZ" * 40 + "3"}, {"rejected": RIGHT},
        {"answer": None},
    )  # fmt: skip
    assert [row["pair"] for row in rows] == [0, 5]
    assert report["pairs"] == {
        "read": 6,
        "used": 2,
        "dropped": {
            "equal responses": 1,
            "a rejected response that is right": 1,
            "no right answer": 1,
            "more tokens than the model's context": 1,
        },
        "left_out": {
            "a rejected response that is right": [1],
            "no right answer": [2],
            "more tokens than the model's context": [3],
        },
    }


def test_a_text_over_the_bound_of_shared_keys_is_left_out_and_the_others_go_on(tokenizer: Any, tmp_path: Path) -> None:
    """Positions of a model with such rotary embeddings depend on a text's length from some length on."""
    lm = scripted(tokenizer, SURE)
    lm.model.config.rope_parameters |= {"rope_type": "dynamic", "original_max_position_embeddings": 20}
    rows, report = found(lm, tmp_path, {"rejected": "QZ" * 20 + "J3"}, {}, {"rejected": "Q" * 17 + "3"})
    assert [row["pair"] for row in rows] == [1]
    assert report["pairs"]["left_out"] == {"more tokens than the model's context": [0, 2]}


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_an_interrupted_walk_goes_on_from_the_solutions_that_were_done(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """What is written is to the byte what an undisturbed run writes; other options find nothing of it."""
    monkeypatch.setattr(find, "PORTION", 1)
    lm = scripted(tokenizer, SURE)
    pairs = pairs_file(tmp_path, {}, {"rejected": "QZJ3"}, {"rejected": "QJX3"})
    method = Find(pairs, rollouts=4, temperature=1.0, mode=mode)
    walked: list[int] = []

    def walk(lm: Any, solutions: Any, how: Any) -> Any:
        if len(walked) == 2:
            raise KeyboardInterrupt
        walked.append(solutions[0].pair)
        return whole(lm, solutions, how)

    whole = walking.walk
    for folder in ("work", "undisturbed"):
        (tmp_path / folder).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(walking, "walk", walk)
        with pytest.raises(KeyboardInterrupt):
            method.apply(lm, seed=0, workdir=tmp_path / "work")
        assert walked == [0, 1] and list((tmp_path / "work").iterdir()) == []
        with pytest.raises(KeyboardInterrupt):
            method.apply(lm, seed=0, workdir=tmp_path / "work")
    method.apply(lm, seed=0, workdir=tmp_path / "work")
    method.apply(lm, seed=0, workdir=tmp_path / "undisturbed")
    for name in ("rollouts.jsonl", "critical_tokens.jsonl", "responses.jsonl", "made_by.json", "report.html"):
        assert (tmp_path / "work" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert list((tmp_path / ".unfinished").iterdir())  # goes when the work is noted as done, not before


def test_the_solutions_of_another_run_are_not_taken_up(tokenizer: Any, tmp_path: Path) -> None:
    """Of another model, seed, option or text; a file that lies elsewhere and says the same is no other."""
    usual: dict[str, Any] = {"rollouts": 4, "temperature": 1.0}
    lm, other, method = scripted(tokenizer, SURE), scripted(tokenizer, {"Q": {"J": 1.0}}), Find(tmp_path / "a", **usual)

    def kept(method: Find = method, lm: Any = lm, seed: int = 0, texts: Any = (1, 2)) -> Parts:
        return going_on.parts_of(method, lm, texts, seed=seed, workdir=tmp_path / "work")

    changed: tuple[dict[str, Any], ...] = (
        {"method": Find(tmp_path / "a", **usual | {"rollouts": 5})},
        {"method": Find(tmp_path / "a", **usual | {"temperature": 0.9})}, {"lm": other}, {"seed": 1}, {"texts": (1, 3)},
    )  # fmt: skip
    for change in changed:
        assert len(kept().done or [kept().part(0, dict)]) == 1
        assert kept(**change).done == []
    kept().part(0, dict)
    assert len(kept(method=Find(tmp_path / "b", **usual)).done) == 1


def test_a_file_without_a_pair_to_walk_along_is_refused_and_leaves_nothing(tokenizer: Any, tmp_path: Path) -> None:
    lm = scripted(tokenizer, SURE)
    with pytest.raises(
        HarnessError, match=r"no pair of '.*' can be walked along: 1 with a rejected response that is right"
    ):
        found(lm, tmp_path, {"rejected": "QZ7"})
    assert not list((tmp_path / "work").iterdir())


def test_a_temperature_of_nothing_has_one_rollout_a_prefix(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [row], _ = found(scripted(tokenizer, SURE), tmp_path, temperature=0)
    assert row["n"] == 1 and row["counts"] == [1, 1, 0, 0, 0, None]
    assert "this one path failed" in capsys.readouterr().err


def test_a_gold_answer_that_cannot_be_read_is_left_out_and_named(tokenizer: Any, tmp_path: Path) -> None:
    """A box that is not closed would make every rollout wrong."""
    rows, report = found(
        scripted(tokenizer, SURE), tmp_path, {"answer": "\\boxed{7"}, {"answer": "7"}, {"answer": "is \\boxed{}"},
        verifier="latex",
    )  # fmt: skip
    assert [row["pair"] for row in rows] == [1] and report["pairs"]["left_out"] == {"no right answer": [0, 2]}


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(HarnessError, match="is empty: it holds no row"):
        Find(tmp_path / "pairs.jsonl").fingerprint()


def test_an_lm_without_weights_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="needs a model that generates"):
        Find(pairs_file(tmp_path)).apply(TokenizerOnly(tokenizer), seed=0, workdir=tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rollouts": 0}, "rollouts is 0; it has to be 1 or more"),
        ({"temperature": -1}, "the first has to be 0 or more"),
        ({"top_p": 0}, "above 0 and at most 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"mode": "quick", "criterion": "drop_test"}, "use mode=full"),
        ({"pairs": 0}, "pairs is 0"),
    ],
)
def test_options_that_no_run_can_use_are_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HarnessError, match=sentence):
        build(Find, {"pairs_file": str(pairs_file(tmp_path)), **options})


def test_what_is_enough_is_five_percent() -> None:
    assert [enough_of(n) for n in (1, 8, 16, 20, 21, 40, 64)] == [1, 1, 1, 1, 2, 2, 4]
