"""A run that was stopped goes on by the same command: what is done is not done again, and the scores are the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.models.lm import Answering
from harness.run.journal import Journal

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]

UNCHANGED = "leaves_model_unchanged: ClassVar[bool] = True"
# Counts forward passes, and stops the run at one of them while a file is there.
STOPPING = """
from collections import Counter
switch, passes = Path({switch!r}), Counter()

def count(module, inputs, kwargs):
    passes["all"] += 1
    if switch.exists() and passes["all"] == int(switch.read_text()):
        raise KeyboardInterrupt

lm.model.register_forward_pre_hook(count, with_kwargs=True)
return lm
"""
NEGATED = """
from harness.models.causal import CausalLM

switch = Path({switch!r})

class Negated(CausalLM):
    def loglikelihood(self, requests, *args, **kwargs):
        answers = [(-value, best) for value, best in super().loglikelihood(requests, *args, **kwargs)]
        if switch.exists():
            raise KeyboardInterrupt
        return answers

return Negated(lm.model, lm.tokenizer, **lm.settings)
"""


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records without what no two runs share, in one order."""
    kept = []
    for record in records:
        one = {name: part for name, part in record.items() if name not in {"created", "cost", "digest", "command"}}
        one["samples"] = one["samples"] and one["samples"]["rows"]
        kept.append(one)
    return sorted(kept, key=lambda one: json.dumps(one, sort_keys=True))


@pytest.mark.parametrize("task", ["long_colours", "write_colours"])
def test_the_same_command_goes_on_where_ctrl_c_stopped_it(
    task: str, make_method: Any, evaluate: Command, records: Records, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    words = ["--plugin", make_method(STOPPING.format(switch=str(switch)), members=UNCHANGED), "--batch_size", "1"]
    whole = evaluate(*words, "--output_path", "whole", tasks=f"colours,{task}")
    assert whole.code == 0, whole.err
    passes = int(re.search(r"in ([0-9,]+) pass", whole.err)[1].replace(",", ""))  # type: ignore[index]
    switch.write_text(str(passes - 2), encoding="utf-8")
    stopped = evaluate(*words, tasks=f"colours,{task}")
    assert stopped.code == 130
    assert [record["task"]["name"] for record in records(Path("out"))] == ["colours"]
    switch.unlink()
    resumed = evaluate(*words, tasks=f"colours,{task}")
    assert resumed.code == 0, resumed.err
    taken = int(re.search(r"([0-9]+) answers were there from an interrupted run", resumed.err)[1])  # type: ignore[index]
    assert 16 < taken < 32 if task == "long_colours" else 16 < taken < 20
    assert without_times(records(Path("out"))) == without_times(records(Path("whole")))
    assert not (Path("out") / ".unfinished").exists()


def test_what_a_method_makes_of_the_answers_is_what_counts(
    make_method: Any, evaluate: Command, records: Records, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    words = ["--plugin", make_method(NEGATED.format(switch=str(switch)), members=UNCHANGED)]
    assert evaluate(*words, "--output_path", "whole").code == 0
    switch.touch()
    assert evaluate(*words).code == 130
    switch.unlink()
    assert evaluate(*words).code == 0
    assert without_times(records(Path("out"))) == without_times(records(Path("whole")))


def test_answers_of_another_method_model_or_option_are_never_taken(
    make_method: Any, evaluate: Command, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    words = ["--plugin", make_method(STOPPING.format(switch=str(switch)), members=UNCHANGED), "--batch_size", "1"]
    switch.write_text("12", encoding="utf-8")
    assert evaluate(*words).code == 130
    switch.unlink()
    for others in (["--method_args", "amount=0.75"], ["--seed", "7"], ["--num_fewshot", "1"], ["--limit", "3"]):
        outcome = evaluate(*words, *others)
        assert outcome.code == 0, outcome.err
        assert "interrupted run" not in outcome.err
    assert "interrupted run" not in evaluate().err  # the untouched model
    assert "answers were there from an interrupted run" in evaluate(*words).err


def test_an_edited_prompt_is_asked_again(make_method: Any, evaluate: Command, own_tasks: Path, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    folder = tmp_path / "edited"
    folder.mkdir()
    (folder / "data.py").write_bytes((own_tasks / "data.py").read_bytes())
    text = (own_tasks / "colours.yaml").read_text(encoding="utf-8").replace("task: colours", "task: shades")
    (folder / "shades.yaml").write_text(text, encoding="utf-8")
    body = STOPPING.format(switch=str(switch))
    words = ["--plugin", make_method(body, members=UNCHANGED), "--include_path", folder, "--batch_size", "1"]
    switch.write_text("12", encoding="utf-8")
    assert evaluate(*words, tasks="shades").code == 130
    switch.unlink()
    (folder / "shades.yaml").write_text(text.replace("{{question}}", "Now: {{question}}"), encoding="utf-8")
    outcome = evaluate(*words, tasks="shades")
    assert (outcome.code, "interrupted run" in outcome.err) == (0, False)


class Echo(Answering):
    """Answers with the number of letters; counts how much it was asked."""

    answers = frozenset({"loglikelihood", "generate_until"})

    def __init__(self) -> None:
        self.asked = 0

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        self.asked += len(requests)
        return [(-1.0 / 3.0 * len(request.args[0]), False) for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        self.asked += len(requests)
        return [f"ünï \ud83d {len(request.args[0])}" for request in requests]


def request(*args: Any, doc: int = 0, idx: int = 0) -> Any:
    return SimpleNamespace(args=args, doc_id=doc, idx=idx, task_name="t", doc={})


def test_a_journal_gives_back_what_was_answered_bit_for_bit(tmp_path: Path) -> None:
    lm, requests = Echo(), [request("a" * n, "b", doc=n) for n in range(5)]
    texts = [request("a" * n, {"until": ["\n"]}, doc=n) for n in range(5)]
    with Journal(tmp_path, {"a": 1}).answering(lm):
        first = lm.loglikelihood(requests), lm.generate_until(texts)
    assert lm.asked == 10
    assert "loglikelihood" not in vars(lm)
    journal = Journal(tmp_path, {"a": 1})
    with journal.answering(lm):
        assert (lm.loglikelihood(requests), lm.generate_until(texts)) == first
    assert (lm.asked, journal.reused) == (10, 10)
    assert Journal(tmp_path, {"a": 2})._answers == {}


def test_answers_that_are_drawn_are_drawn_again(tmp_path: Path) -> None:
    lm = Echo()
    for _ in range(2):
        with Journal(tmp_path, {}).answering(lm):
            lm.generate_until([request("x", {"do_sample": True}), request("y", {"temperature": 0.5})])
    assert lm.asked == 4


def test_a_torn_journal_costs_only_its_torn_answer(tmp_path: Path) -> None:
    lm = Echo()
    journal = Journal(tmp_path, {})
    with journal.answering(lm):
        lm.loglikelihood([request("abc", "d", doc=n) for n in range(3)])
    lines = journal.file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4  # the last one says how long it took
    journal.file.write_bytes(b"".join(lines[:3])[:-7])
    again = Journal(tmp_path, {})
    with again.answering(lm):
        lm.loglikelihood([request("abc", "d", doc=n) for n in range(3)])
    assert (again.reused, lm.asked) == (2, 4)


def test_kill_9_while_asking_costs_seconds_of_answers_at_most(
    evaluate: Command, records: Records, tiny_model: Path
) -> None:
    words = ["eval", "--model_args", f"pretrained={tiny_model}", "--tasks", "langgame,addition_3digit", "--limit", "40"]
    command = [sys.executable, "-m", "harness.cli", *words, "--output_path", "out"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            if len(list(Path("out").glob("*/records_*"))) >= 3 or process.poll() is not None:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.wait(60)
    assert process.returncode == -signal.SIGKILL
    finished = {record["task"]["name"] for record in records(Path("out"))}
    assert len(finished) >= 3
    for folder in ("out", "whole"):
        again = subprocess.run([*command[:-1], folder], capture_output=True, text=True, timeout=300, check=False)
        assert again.returncode == 0, again.stderr
        assert ("interrupted run" in again.stderr) == (folder == "out")
    assert without_times(records(Path("out"))) == without_times(records(Path("whole")))
    assert [path.name for path in Path("out").rglob("*") if path.suffix == ".partial"] == []


def test_a_task_that_hangs_is_told_and_the_next_one_asked(
    make_method: Any, evaluate: Command, records: Records
) -> None:
    body = """
import time
from harness.models.causal import CausalLM

class Hanging(CausalLM):
    def loglikelihood(self, requests, *args, **kwargs):
        if requests[0].task_name == "long_colours":
            time.sleep(60)
        return super().loglikelihood(requests, *args, **kwargs)

return Hanging(lm.model, lm.tokenizer, **lm.settings)
"""
    words = ["--plugin", make_method(body, members=UNCHANGED), "--timeout_task", "3"]
    started = time.monotonic()
    outcome = evaluate(*words, tasks="long_colours,colours")
    assert time.monotonic() - started < 50
    assert outcome.code == 1
    assert outcome.sentence == "harness: task 'long_colours' took longer than --timeout_task 3 s and was stopped"
    assert [record["task"]["name"] for record in records(Path("out"))] == ["colours"]
