"""How many threads torch computes with: the user's word first, then cores, then what was measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import cores, progress, threads
from harness.cores import cpu_quota, usable_cores, usual_threads
from harness.records.record import EnvironmentPart
from harness.run import environment as described
from harness.threads import Threads, fastest, seconds_by_threads

OLD = {"python": "3", "torch": "2", "transformers": "5", "lm_eval": "0.4", "peft": "0", "harness": "0.1",
       "platform": "Linux", "device": "cpu", "threads": 2}  # fmt: skip


class Machine:
    """A machine whose speeds and time a test sets; torch's threads are real."""

    def __init__(self) -> None:
        self.seconds: Mapping[int, float] = {1: 1.0, 2: 0.5}
        self.now = 0.0
        self.looks = 0
        self.threads = Threads(self.measure, lambda: self.now)

    def measure(self, numbers: Sequence[int], width: int) -> Mapping[int, float]:
        self.looks += 1
        return {number: self.seconds[number] for number in numbers}

    def passes(self, count: int, seconds: float) -> None:
        for _ in range(count):
            self.now += seconds
            self.threads.saw("scoring", 100, seconds)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Two cores, two threads by torch's default, nothing said by the user."""
    for name in (*threads.NUMBERS, "LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores, "logical_cores", lambda: 2)
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    monkeypatch.setattr(threads, "usual_threads", lambda: {2})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    progress.forget_said()
    made = Machine()
    for module in (threads, described):
        monkeypatch.setattr(module, "OF_THIS_PROCESS", made.threads)
    yield made
    torch.set_num_threads(before)


def test_torchs_number_is_kept_without_a_word_where_it_is_the_fastest(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.threads.choose("cpu")
    assert (torch.get_num_threads(), machine.threads.how) == (2, "measured")
    assert capsys.readouterr().err == ""


def test_fewer_threads_are_told_in_one_line_and_once(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.seconds = {1: 1.0, 2: 2.0}
    for _ in range(3):
        machine.threads.choose("cpu")
    [line] = capsys.readouterr().err.splitlines()
    assert "1 thread where torch would take 2" in line and "OMP_NUM_THREADS" in line
    assert (torch.get_num_threads(), machine.looks) == (1, 1)


@pytest.mark.parametrize("name", threads.NUMBERS)
def test_what_the_user_says_is_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "2,1")
    machine.threads.choose("cpu")
    assert (torch.get_num_threads(), machine.threads.how, machine.looks) == (2, name, 0)


def test_what_code_has_set_is_kept(machine: Machine) -> None:
    torch.set_num_threads(5)
    machine.threads.choose("cpu")
    assert (torch.get_num_threads(), machine.threads.how, machine.looks) == (5, "code", 0)


def test_what_code_sets_later_is_kept_and_told_as_such(machine: Machine) -> None:
    machine.threads.choose("cpu")
    torch.set_num_threads(5)
    machine.passes(5, 1.0)
    machine.passes(5, 100.0)
    assert (torch.get_num_threads(), machine.threads.how, machine.looks) == (5, "code", 1)


@pytest.mark.parametrize("value", ["0", "nonsense", "-1", "\x1b[1m"])
def test_a_number_of_threads_that_is_none_is_told_and_measured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    machine.threads.choose("cpu")
    said = capsys.readouterr().err
    assert "OMP_NUM_THREADS is " in said and "\x1b" not in said
    assert machine.threads.how == "measured"


def test_an_empty_number_of_threads_is_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    machine.threads.choose("cpu")
    assert (machine.threads.how, capsys.readouterr().err) == ("measured", "")


def test_processes_of_one_machine_share_its_cores(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    machine.threads.choose("cpu")
    assert (torch.get_num_threads(), machine.threads.how, machine.looks) == (1, "cores", 0)
    assert "shared by 2 processes" in capsys.readouterr().err


@pytest.mark.parametrize("quota", [0.2, 1.0])
def test_a_quota_of_a_core_or_less_leaves_one_thread(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, quota: float
) -> None:
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    machine.threads.choose("cpu")
    assert (torch.get_num_threads(), machine.threads.how, machine.looks) == (1, "cores", 0)


def test_a_gpus_run_keeps_torchs_number_within_its_quota(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.threads.choose("cuda:0")
    assert (torch.get_num_threads(), machine.threads.how, machine.looks) == (2, "torch", 0)
    monkeypatch.setattr(cores, "cpu_quota", lambda: 1.0)
    within = Threads(machine.measure)
    within.choose("cuda:0")
    assert (torch.get_num_threads(), within.how) == (1, "cores")


def test_slow_passes_make_it_look_again_and_fast_ones_do_not(machine: Machine) -> None:
    machine.threads.choose("cpu")
    machine.passes(20, 1.0)
    assert machine.looks == 1
    machine.seconds = {1: 1.0, 2: 3.0}
    machine.passes(1, 4.0)
    assert machine.looks == 1, "one slow pass is noise"
    machine.passes(1, 4.0)
    assert (machine.looks, torch.get_num_threads()) == (2, 1)
    assert machine.threads.how == "measured (before: 2)"


def test_looks_that_change_nothing_become_rare(machine: Machine) -> None:
    machine.threads.choose("cpu")
    machine.passes(10, 0.1)
    for _ in range(100):
        machine.passes(2, 1.0)
        machine.passes(5, 0.01)
    assert 2 < machine.looks < 9


def test_a_machine_that_became_quiet_is_used_again(machine: Machine) -> None:
    machine.seconds = {1: 1.0, 2: 2.0}
    machine.threads.choose("cpu")
    machine.seconds = {1: 1.0, 2: 0.5}
    machine.passes(70, 1.0)
    assert (machine.looks, torch.get_num_threads(), machine.threads.how) == (2, 2, "measured (before: 1)")


def test_passes_of_another_size_are_not_compared(machine: Machine) -> None:
    machine.threads.choose("cpu")
    machine.passes(10, 1.0)
    for _ in range(10):
        machine.now += 10
        machine.threads.saw("scoring", 2, 1.0)  # few tokens cost as much as many
        machine.threads.saw("training", 100, 50.0)
    assert machine.looks == 1


def test_more_threads_have_to_be_clearly_faster() -> None:
    assert fastest({1: 1.0, 2: 0.95}) == 1
    assert fastest({1: 1.0, 2: 0.6, 4: 0.58}) == 2
    assert fastest({2: 0.6, 4: 0.3}) == 4, "one thread was hopeless"


def test_measuring_leaves_torch_as_it_was(machine: Machine) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        seconds = seconds_by_threads([1, 2], 64)
    assert seconds and min(seconds.values()) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 2


def test_the_environment_of_a_record_says_how_the_number_came_about(machine: Machine) -> None:
    machine.threads.choose("cpu")
    part = described.environment("cpu")
    assert (part.threads, part.threads_from) == (2, "measured")


def test_a_record_from_before_says_nothing_of_it_and_keeps_its_content() -> None:
    part = EnvironmentPart.model_validate(OLD)
    assert part.threads_from is None
    assert part.model_dump(exclude_unset=True) == OLD


def groups(folder: Path, own: str, **files: str) -> tuple[Path, Path]:
    """Write control groups as a machine shows them."""
    for name, text in files.items():
        path = folder / "mounted" / name.replace("__", "/").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    (folder / "own").write_text(own, encoding="ascii")
    return folder / "mounted", folder / "own"


def test_a_quota_of_either_version_is_found_and_the_least_one_above_counts(tmp_path: Path) -> None:
    two = groups(tmp_path, "0::/pod/box\n", cpu_max="max 100000", pod__cpu_max="150000 100000",
                 pod__box__cpu_max="400000 100000")  # fmt: skip
    assert cpu_quota(*two) == 1.5
    (tmp_path / "mounted" / "cpu" / "box").mkdir(parents=True)
    for name, text in {"cfs_quota_us": "50000", "cfs_period_us": "100000"}.items():
        (tmp_path / "mounted" / "cpu" / "box" / f"cpu.{name}").write_text(text, encoding="ascii")
    (tmp_path / "own").write_text("4:memory:/x\n3:cpu,cpuacct:/box\n0::/\n", encoding="ascii")
    assert cpu_quota(*two) == 0.5


@pytest.mark.parametrize("text", ["max 100000", "-1 100000", "100000 0", "100000", "", "a b"])
def test_what_is_no_quota_limits_nothing(tmp_path: Path, text: str) -> None:
    assert cpu_quota(*groups(tmp_path, "0::/\nnonsense\n", cpu_max=text)) is None


def test_a_system_without_control_groups_affinity_or_topology_has_all_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "os", SimpleNamespace(cpu_count=lambda: 8, environ={}))
    assert cpu_quota(tmp_path / "none", tmp_path / "none") is None
    assert cores.logical_cores() == 8
    assert usual_threads(tmp_path / "none") == {4, 5, 6, 7, 8}


@pytest.mark.parametrize(("told", "expected"), [("2", 4), ("100", 1), ("0", 8), ("nonsense", 8), ("", 8), ("²", 8)])
def test_cores_are_divided_among_the_processes_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, told: str, expected: int
) -> None:
    monkeypatch.setattr(cores, "logical_cores", lambda: 8)
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", told)
    assert usable_cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_one_core_by_affinity_is_one_thread() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert (cores.logical_cores(), usual_threads()) == (1, {1})
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("given", "is_loaded", "expected"),
    [
        ({}, False, "passive"),
        ({}, True, None),
        ({"OMP_WAIT_POLICY": "active"}, False, "active"),
        ({"GOMP_SPINCOUNT": "5"}, False, None),
    ],
)
def test_threads_wait_asleep_unless_the_user_says_how_or_it_is_too_late(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], is_loaded: bool, expected: str | None
) -> None:
    for name in threads.WAITING:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if not is_loaded:
        monkeypatch.delitem(sys.modules, "torch")
    threads.wait_passively()
    assert os.environ.get("OMP_WAIT_POLICY") == expected
    threads.wait_as_usual()  # as an engine of its own begins
    assert os.environ.get("OMP_WAIT_POLICY") == given.get("OMP_WAIT_POLICY")


def test_scoring_and_training_are_watched(machine: Machine, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api.instance import Instance

    from harness.methods.training import Batch, train
    from harness.models.finding import resolve
    from harness.models.loading import load_lm

    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(machine.threads, "saw", lambda kind, tokens, seconds: seen.append((kind, tokens)))
    lm = load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size="auto")
    lm.loglikelihood([Instance("loglikelihood", {}, ("Forty clocks", " ticked"), 0)])
    assert seen and {kind for kind, _ in seen} == {"scoring"}
    seen.clear()
    ids = torch.arange(8).view(2, 4)
    train(lm.model, [Batch(ids, ids, torch.ones_like(ids))] * 2, steps=2, learning_rate=0.1, warmup_steps=0, label="")
    assert seen == [("training", 8)] * 2
