"""One task over several processes: the last shard makes the records, and they are those of a run that was never divided."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.run.shard import Shard

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.xdist_group("runs")]

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]

SCALE = "(workdir / 'made').write_text('x')\nlm.model.model.norm.weight.data.mul_(self.amount)\nreturn lm"
TASKS = "langgame_contains,langgame_ends_with,addition_3digit"
# What no two runs have in common; what of it is promised is asserted by itself.
OTHER = {"created", "cost", "digest", "environment"}


def told(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records without times, costs and machine, in one order."""
    kept = [{name: part for name, part in record.items() if name not in OTHER} for record in records]
    for one in kept:
        one["samples"] = one["samples"] and [one["samples"]["rows"], one["samples"]["sha256"]]
        one["command"] = re.sub(r"--output_path \S+", "", one["command"])
    return sorted(kept, key=lambda one: json.dumps(one, sort_keys=True))


def tokens(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what records say of the tokens that were asked for, whoever asked them."""
    names = ("requested_tokens", "distinct_tokens", "distinct_pairs", "reason")
    return [
        {name: one["cost"]["scoring"][name] for name in names} for one in records if "langgame" in one["task"]["name"]
    ]


@pytest.fixture
def words(tiny_model: Path) -> list[object]:
    """A command on three tasks, two of several batches."""
    model = json.dumps({"pretrained": str(tiny_model)})
    return ["eval", "--model_args", model, "--tasks", TASKS, "--limit", "40"]


def test_shards_one_after_the_other_leave_the_records_of_a_run_that_was_not_divided(
    words: list[object], forked: Command, records: Records
) -> None:
    whole = forked(*words, "--output_path", "whole").wait()
    assert whole.code == 0, whole.err
    for number in (3, 1, 2):
        shard = forked(*words, "--output_path", "out", "--shard", f"{number}/3").wait()
        assert shard.code == 0, shard.err
        assert len(records(Path("out"))) == (5 if number == 2 else 0)
        if number == 1:
            assert (
                "shard 1 of 3 is answered; the records come with the last one (2 of 3 answered: missing 2)" in shard.err
            )
    assert told(records(Path("out"))) == told(records(Path("whole")))
    assert tokens(records(Path("out"))) == tokens(records(Path("whole")))
    assert not (Path("out") / ".unfinished").exists()
    assert forked("verify", "out").wait().code == 0
    again = forked(*words, "--output_path", "out", "--shard", "2/3").wait()
    assert (again.code, "shard 2 of 3 asks nothing" in again.err, "loading" in again.err) == (0, True, False)
    assert "5 records in out/baseline-" in again.out


def test_shards_at_once_wait_for_nobody_and_one_of_them_makes_the_records(
    words: list[object], make_method: Any, forked: Command, records: Records
) -> None:
    words += ["--plugin", make_method(SCALE), "--with_baseline"]
    started = [forked(*words, "--output_path", "out", "--shard", f"{number}/3") for number in (1, 2, 3)]
    ended = [shard.wait() for shard in started]
    assert [shard.code for shard in ended] == [0, 0, 0], ended
    said = "".join(shard.err for shard in ended)
    assert "shard of" not in said and said.count("makes the records") >= 2
    assert forked(*words, "--output_path", "whole").wait().code == 0
    assert told(records(Path("out"))) == told(records(Path("whole")))
    assert len(records(Path("out"))) == 10 and not (Path("out") / ".unfinished").exists()
    assert sum("evaluating invented on" in line and "shard" not in line for line in said.splitlines()) >= 1


def test_a_shard_that_was_killed_goes_on_and_one_that_is_done_asks_nothing(
    words: list[object], forked: Command, records: Records
) -> None:
    words = [*words[:-1], "200", "--output_path", "out"]
    process = forked(*words, "--shard", "1/2")
    for _ in range(2400):
        if list(Path("out").glob(".unfinished/*/answers-shards.jsonl")) or process.has_ended:
            break
        time.sleep(0.02)
    process.send(signal.SIGKILL)
    process.wait()
    resumed = forked(*words, "--shard", "1/2").wait()
    assert resumed.code == 0 and " were there" in resumed.err, resumed.err
    again = forked(*words, "--shard", "1/2").wait()
    assert re.findall(r"([0-9,]+) answers, [0-9.]+ s", again.err) == ["0", "0", "0"], again.err
    assert records(Path("out")) == []
    finished = forked(*words).wait()  # without --shard
    assert finished.code == 0, finished.err
    assert forked(*words[:-1], "whole").wait().code == 0
    assert told(records(Path("out"))) == told(records(Path("whole")))
    assert not (Path("out") / ".unfinished").exists()


def test_the_answers_of_other_tasks_shards_outlive_the_end_of_a_run(
    words: list[object], forked: Command, records: Records
) -> None:
    words += ["--output_path", "out"]
    assert forked(*words, "--shard", "1/2").wait().code == 0
    others = [*words[:4], "addition_3digit", *words[5:]]
    assert forked(*others).wait().code == 0
    assert len(records(Path("out"))) == 1
    last = forked(*words, "--shard", "2/2").wait()
    assert last.code == 0 and "shard 2 of 2 makes the records" in last.err, last.err
    assert len(records(Path("out"))) == 5 and not (Path("out") / ".unfinished").exists()


def test_scores_that_are_no_numbers_end_as_they_do_without_shards(
    make_method: Any, evaluate: Command, records: Records
) -> None:
    broken = """
    import torch
    weight = lm.model.get_input_embeddings().weight
    weight.data[lm.tok_encode(" snow")[-1]] = torch.nan
    return lm
    """
    words = ["--plugin", make_method(broken)]
    whole = evaluate(*words, "--output_path", "whole", tasks="colours")
    codes = [evaluate(*words, "--shard", f"{number}/2", tasks="colours") for number in (1, 2)]
    assert [one.code for one in [whole, *codes]][0::2] == [1, 1]
    made, due = records(Path("out")), records(Path("whole"))
    assert [one["status"] for one in made] == ["invalid"] == [one["status"] for one in due]
    assert made[0]["counts"] == due[0]["counts"]


def test_each_seed_is_divided_for_itself(make_method: Any, evaluate: Command, records: Records) -> None:
    words = ["--plugin", make_method(SCALE), "--seeds", "1,2"]
    for number in (1, 2):
        assert evaluate(*words, "--shard", f"{number}/2").code == 0
    assert sorted(one["seeds"]["random"] for one in records(Path("out"))) == [1, 2]
    assert not any("--shard" in one["command"] for one in records(Path("out")))


@pytest.mark.parametrize("words", ["", "0/3", "4/3", "3", "a/b", "1/10001", "-1/2", "1/2/3", "1.0/2"])
def test_a_part_that_is_none_is_refused(words: str, evaluate: Command) -> None:
    outcome = evaluate(f"--shard={words}")
    assert outcome.code == 2 and outcome.sentence.startswith("harness: --shard is '")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--no-cache"], "--shard and --no-cache exclude each other"),
        (["--gen_kwargs", "temperature=0.7"], "task 'write_colours' has its answers drawn at random"),
    ],
)
def test_what_cannot_be_divided_is_refused(flags: list[str], sentence: str, evaluate: Command) -> None:
    outcome = evaluate("--shard", "1/2", *flags, tasks="write_colours")
    assert outcome.code == 2 and sentence in outcome.sentence


def test_a_process_of_a_launcher_is_no_shard(evaluate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    outcome = evaluate("--shard", "1/2")
    assert outcome.code == 2 and "a launcher joined 2 here" in outcome.sentence


def test_all_requests_of_a_document_are_one_shards_and_a_corpus_is_dealt_out() -> None:
    from types import SimpleNamespace

    asked: list[Any] = [SimpleNamespace(doc_id=doc, idx=idx) for doc in range(5) for idx in range(2)]
    asked += [SimpleNamespace(doc_id=-1, idx=idx) for idx in range(4)]
    owned = [Shard(number, 2).owned(asked) for number in (1, 2)]
    assert sorted(owned[0] + owned[1]) == list(range(14))
    assert owned == [[0, 1, 4, 5, 8, 9, 10, 12], [2, 3, 6, 7, 11, 13]]
    with pytest.raises(HarnessError, match="K-th of N parts"):
        Shard.of("3/2")
