"""Two processes for one run do it once: the second waits before weights are loaded, and takes what the first has made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.xdist_group("runs")]

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]

SCALE = "lm.model.model.norm.weight.data.mul_(self.amount)\nreturn lm"
WAITING = """
import time
from pathlib import Path

def score(doc, results):
    Path({asked!r}).touch()
    while not Path({switch!r}).exists():
        time.sleep(0.01)
    return {{"acc": float(results[0][0] > results[1][0])}}
"""


def until(is_so: Callable[[], bool], *runs: Any) -> None:
    """Wait until something is so, while the runs go on."""
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end and not any(run.has_ended for run in runs), [run.err for run in runs]
        time.sleep(0.02)


@pytest.fixture
def words(own_tasks: Path, tiny_model: Path, tmp_path: Path) -> list[object]:
    """A command on a task that is not scored before there is a file called ``switch``; ``asked`` is there when it waits."""
    folder = tmp_path / "waiting"
    folder.mkdir()
    shutil.copy(own_tasks / "data.py", folder)
    code = WAITING.format(switch=str(tmp_path / "switch"), asked=str(tmp_path / "asked"))
    (folder / "waiting.py").write_text(code, encoding="utf-8")
    text = (own_tasks / "colours.yaml").read_text(encoding="utf-8").replace("task: colours", "task: shades")
    (folder / "shades.yaml").write_text(f"{text}process_results: !function waiting.score\n", encoding="utf-8")
    model = json.dumps({"pretrained": str(tiny_model)})
    return ["eval", "--model_args", model, "--include_path", folder, "--tasks", "shades", "--output_path", "out"]


@pytest.mark.parametrize("end", ["well", "killed"])
def test_a_second_process_for_one_run_waits_without_weights_and_takes_its_records(
    end: str, words: list[object], make_method: Any, forked: Command, records: Records, tmp_path: Path
) -> None:
    words += ["--plugin", make_method(SCALE), "--with_baseline"]
    first = forked(*words)
    until((tmp_path / "asked").exists, first)
    second = forked(*words)
    until(lambda: "waiting for it to end" in second.err, first, second)
    assert f"this run of invented is active already (process {first.pid} since 20" in second.err
    if end == "killed":
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    (tmp_path / "switch").touch()
    assert end == "killed" or first.wait().code == 0, first.err
    ended = second.wait()
    assert ended.code == 0, ended.err
    assert len(records(Path("out"))) == 2
    assert "2 records in out/baseline-" in ended.out
    taken = ("loading", "evaluating baseline", "evaluating invented")
    assert [said in ended.err for said in taken] == [end == "killed"] * 3
    assert ("invented's records of the run that has just ended are reused (out/invention-" in ended.err) == (
        end == "well"
    )
    assert not list((tmp_path / "cache" / "claims").glob("*.json"))


def test_the_untouched_model_is_asked_once_by_two_methods_at_once(
    words: list[object], make_method: Any, forked: Command, records: Records, tmp_path: Path
) -> None:
    first, second = (
        forked(*words, "--with_baseline", "--plugin", make_method(SCALE, plugin=name)) for name in ("one", "another")
    )
    until(lambda: "waiting for it to end" in first.err + second.err, first, second)
    (tmp_path / "switch").touch()
    ended = [run.wait() for run in (first, second)]
    assert [run.code for run in ended] == [0, 0], ended
    said = ended[0].err + ended[1].err
    assert (said.count("evaluating baseline"), said.count("evaluating invented")) == (1, 2)
    assert "this run of baseline is active already (process " in said
    assert sorted(record["method"]["name"] for record in records(Path("out"))) == ["baseline", "invented", "invented"]


def test_edited_questions_are_asked_by_the_process_that_waited(
    words: list[object], forked: Command, records: Records, tmp_path: Path
) -> None:
    first = forked(*words)
    until((tmp_path / "asked").exists, first)
    data = tmp_path / "waiting" / "data.py"
    data.write_text(data.read_text(encoding="utf-8").replace("The colour of", "The hue of"), encoding="utf-8")
    second = forked(*words)
    until(lambda: "waiting for it to end" in second.err, first, second)
    (tmp_path / "switch").touch()
    assert (first.wait().code, second.wait().code) == (0, 0)
    assert "evaluating baseline" in second.err
    assert len({record["task"]["docs_digest"] for record in records(Path("out"))}) == 2
