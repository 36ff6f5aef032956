"""A run that was stopped goes on by the same command: what is done is not done again, and the scores are the same."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.xdist_group("runs")
def test_kill_9_while_asking_costs_seconds_of_answers_at_most(
    forked: Command, records: Records, tiny_model: Path
) -> None:
    words = ["eval", "--model_args", f"pretrained={tiny_model}", "--tasks", "langgame,addition_3digit", "--limit", "40"]
    process = forked(*words, "--output_path", "out")
    for _ in range(1200):
        if len(list(Path("out").glob("*/records_*"))) >= 3 or process.has_ended:
            break
        time.sleep(0.05)
    process.send(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    finished = {record["task"]["name"] for record in records(Path("out"))}
    assert len(finished) >= 3
    for folder in ("out", "whole"):
        again = forked(*words, "--output_path", folder).wait(300)
        assert again.code == 0, again.err
        assert ("interrupted run" in again.err) == (folder == "out")
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
