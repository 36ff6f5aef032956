"""A cell in several processes, started as ``accelerate launch`` starts them."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.run.run import Run
from harness.sweeps.cell import Cell
from harness.sweeps.launching import check_devices, environment, run_launched

OF_THE_MOMENT = {"created", "command", "cost", "digest", "samples", "environment"}
RAN_AWAY = """
import sys
from pathlib import Path
from harness.run.run import Run
from harness.sweeps.cell import Cell
from harness.sweeps.launching import run_launched

run_launched(Cell(Run(**{run}), processes=2), Path("log.txt"))
"""


def _run(model: Path, tasks: Path, output: str, **more: Any) -> Run:
    given = {"tasks": ("colours", "write_colours"), "include_path": (str(tasks),), "output_path": Path(output)}
    return Run(**(given | {"model_args": {"pretrained": str(model)}} | more))


def _decided(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in OF_THE_MOMENT}


@pytest.mark.usefixtures("fresh")
def test_two_processes_leave_the_records_of_one(
    tiny_model: Path, own_tasks: Path, records: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """Each answers its part of the documents, on a CPU as on GPUs; what is recorded is the same to the digit."""
    from harness.run.evaluating import evaluate

    log = Path("log.txt")
    more = {"model_args": {"pretrained": str(tiny_model), "device_map": "auto"}}
    assert run_launched(Cell(_run(tiny_model, own_tasks, "two", **more), processes=2), log) == 0, log.read_text(
        encoding="utf-8"
    )
    evaluate(_run(tiny_model, own_tasks, "one", **more))
    two, one = records(Path("two")), records(Path("one"))
    assert [record["environment"]["processes"] for record in two] == [2, 2]
    assert list(map(_decided, two)) == list(map(_decided, one))
    assert "2 records in" in log.read_text(encoding="utf-8")


@pytest.mark.usefixtures("fresh")
def test_a_mistake_is_the_last_line_of_the_log_and_has_its_status(tiny_model: Path, own_tasks: Path) -> None:
    log = Path("log.txt")
    log.write_text("harness: of an attempt before\n", encoding="utf-8")
    run = _run(tiny_model, own_tasks, "two", plugin="stochastok", method_args={"stesp": 1})
    assert run_launched(Cell(run, processes=2), log) == 2
    assert (
        log.read_text(encoding="utf-8")
        .splitlines()[-1]
        .startswith("harness: method 'stochastok' has no option 'stesp'")
    )


@pytest.mark.usefixtures("fresh")
def test_the_processes_end_with_a_worker_that_is_killed(tiny_model: Path, own_tasks: Path) -> None:
    """Nobody is left behind who would make records beside a worker that takes the cell over."""
    run = {"tasks": ("colours",), "include_path": (str(own_tasks),), "model_args": {"pretrained": str(tiny_model)}}
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(RAN_AWAY).format(run=run)], cwd=Path.cwd())
    launcher = _until(lambda: _child_of(worker.pid))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    _until(lambda: not Path(f"/proc/{launcher}").exists())


def test_what_a_launch_around_it_said_does_not_reach_the_processes() -> None:
    inherited = {
        "WORLD_SIZE": "8",
        "RANK": "3",
        "MASTER_ADDR": "node7",
        "TORCHELASTIC_RUN_ID": "x",
        "HOME": "/home/ada",
    }
    given = environment(inherited, 2, "cpu")
    assert given == {"HOME": "/home/ada", "OMP_NUM_THREADS": given["OMP_NUM_THREADS"], "ACCELERATE_USE_CPU": "true"}
    assert environment({"MKL_NUM_THREADS": "3"}, 2, None) == {"MKL_NUM_THREADS": "3"}


def test_one_device_is_none_for_several_processes() -> None:
    with pytest.raises(HarnessError, match="--device cuda:1 is one device, and 2 processes need one each"):
        check_devices(2, "cuda:1")


def _child_of(parent: int) -> int | None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            return int(folder.name)
    return None


def _until(found: Callable[[], Any]) -> Any:
    for _ in range(1200):
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come about")
