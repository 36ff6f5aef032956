"""Everything that has to be shown on a GPU, in one run of under eight minutes: ``python benchmarks/on_gpu.py > found.json``.

Nothing is read from the network: weights are random, or those of the installed default model. Each part runs in a process of its
own (a broken kernel spoils all that a process does after it) and has a share of ``--seconds``: one that overruns is cut, keeps
what it found until then, and the others follow; what breaks is written down and stops nothing else. One JSON object comes on
stdout, a table for people on stderr. ``--device cpu --scale 0.02`` tries the script out in about a minute.

A machine without a network needs lm-eval, PEFT and what they import; bitsandbytes for ``quantised``, else that part says that
it is absent: ``pip download --no-deps`` the wheels, then ``pip install --no-index --no-deps --target FOLDER``, and put FOLDER and
the source tree, its ``plugins`` and ``tasks`` on PYTHONPATH.

Exit status: 0 when all checks passed and no part broke or was cut, else 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# So that asking whether there is a GPU leaves the driver alone: a process that used it cannot fork.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import on_gpu_parts as parts

HERE = Path(__file__).resolve()
# What each part may take of the time that is left, in shares.
SHARES = {"device": 1, "kernels": 2, "sharing": 4, "training": 4, "quantised": 3, "auto": 4, "scoring": 5}
PACKAGES = ("torch", "transformers", "lm_eval", "peft", "bitsandbytes", "triton", "token-harness")


def main(words: list[str] | None = None) -> int:
    """Run the parts and print what they found; 1 when something is wrong."""
    arguments = _parser().parse_args(words)
    if arguments.part:
        _work(arguments.part, arguments, arguments.report)
        return 0
    started = time.monotonic()
    chosen = ["device", *(name for name in SHARES if name in arguments.parts and name != "device")]
    found: dict[str, Any] = {}
    start = _fork if hasattr(os, "fork") else _spawn
    for place, name in enumerate(chosen):
        left = arguments.seconds - (time.monotonic() - started)
        limit = left * SHARES[name] / sum(SHARES[other] for other in chosen[place:])
        found[name] = run_part(name, arguments, start, limit)
        if start is _fork and name == "device" and "CUDA" in (found[name]["error"] or ""):
            start = _spawn  # a driver that was asked something before the fork
            found[name] = run_part(name, arguments, start, limit)
        print(_lines(name, found[name]), file=sys.stderr, flush=True)
    is_well = all(part["status"] in {"done", "absent"} and not part["wrong"] for part in found.values())
    about = {
        "ok": is_well, "seconds": round(time.monotonic() - started, 1), "scale": arguments.scale,
        "versions": {name: _version(name) for name in PACKAGES}, "python": platform.python_version(),
        "processes": start.__name__.removeprefix("_"),
    }  # fmt: skip
    print(json.dumps(about | {"parts": found}, indent=1))
    return 0 if is_well else 1


def run_part(
    name: str, arguments: argparse.Namespace, start: Callable[[str, argparse.Namespace, Path], _Process], limit: float
) -> dict[str, Any]:
    """Run a part for ``limit`` seconds at most, and return its status, checks and figures."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        report.touch()
        process = start(name, arguments, report)
        while process.is_running() and time.monotonic() - started < limit:
            time.sleep(0.05)
        was_cut = process.is_running()
        process.kill()
        entries = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    error = next((entry["error"] for entry in entries if "error" in entry), None)
    absent = next((entry["absent"] for entry in entries if "absent" in entry), None)
    checks = {entry["check"]: entry for entry in entries if "check" in entry}
    is_ended = any("ended" in entry for entry in entries)
    status = "cut" if was_cut else "absent" if absent else "done" if is_ended else "failed"
    return {
        "status": status, "seconds": round(time.monotonic() - started, 1), "limit": round(limit, 1),
        "error": absent or error or (None if is_ended or was_cut else "the process died without a word"),
        "checks": {name: {"ok": one["ok"], **one["of"]} for name, one in checks.items()},
        "wrong": [name for name, one in checks.items() if not one["ok"]],
        "figures": {entry["figure"]: entry["of"] for entry in entries if "figure" in entry},
    }  # fmt: skip


class _Process:
    """A process that may be killed."""

    def is_running(self) -> bool:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError


class _Forked(_Process):
    def __init__(self, number: int) -> None:
        self.number, self.is_over = number, False

    def is_running(self) -> bool:
        self.is_over = self.is_over or os.waitpid(self.number, os.WNOHANG)[0] != 0
        return not self.is_over

    def kill(self) -> None:
        if self.is_running():
            os.kill(self.number, 9)
            os.waitpid(self.number, 0)


class _Spawned(_Process):
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _fork(name: str, arguments: argparse.Namespace, report: Path) -> _Process:
    """Start a part in a copy of this process, which has imported everything already."""
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number == 0:
        status = 1
        try:
            os.dup2(2, 1)  # stdout is for the JSON
            _work(name, arguments, report)
            status = 0
        finally:
            os._exit(status)
    return _Forked(number)


def _spawn(name: str, arguments: argparse.Namespace, report: Path) -> _Process:
    """Start a part in a process of its own from nothing."""
    command = [sys.executable, str(HERE), "--part", name, "--report", str(report), "--scale", str(arguments.scale)]
    if arguments.device:
        command += ["--device", arguments.device]
    return _Spawned(subprocess.Popen(command, stdout=sys.stderr.fileno()))


def _work(name: str, arguments: argparse.Namespace, report: Path) -> None:
    """Do a part here, and write what it finds as it is found."""
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with report.open("a", encoding="utf-8", buffering=1) as lines:

        def write(kind: str, name: str, /, ok: bool = True, **of: Any) -> None:
            told = {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in of.items()
            }
            entry = {kind: name, "of": told} | ({"ok": bool(ok)} if kind == "check" else {})
            lines.write(json.dumps(entry, default=str, allow_nan=False) + "\n")

        try:
            parts.PARTS[name](parts.Place(arguments.device, arguments.scale, write))
        except parts.Absent as absent:
            lines.write(json.dumps({"absent": str(absent)}) + "\n")
        except BaseException as error:  # SystemExit of a benchmark that found a difference, too
            text = "".join(traceback.format_exception(error)[-4:])
            lines.write(json.dumps({"error": text[-2000:]}) + "\n")
            return
        lines.write(json.dumps({"ended": True}) + "\n")


def _lines(name: str, part: dict[str, Any]) -> str:
    """Return a part as lines for people."""
    lines = [f"== {name}: {part['status']}, {part['seconds']:.0f} of {part['limit']:.0f} s"]
    if part["error"]:
        lines.append(f"   {part['error'].strip().splitlines()[-1]}")
    for what, one in part["checks"].items():
        lines.append(f"   {'right' if one['ok'] else 'WRONG'}  {what}: {_short(one, 'ok')}")
    lines += [f"          {what}: {_short(one)}" for what, one in part["figures"].items()]
    return "\n".join(lines)


def _short(values: dict[str, Any], *left_out: str) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if name not in left_out
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="as for harness eval; by default the best there is")
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="S", help="share of sizes and counts, to try it out"
    )
    parser.add_argument("--seconds", type=float, default=450.0, metavar="S", help="for everything (default 450)")
    parser.add_argument("--parts", nargs="+", default=list(SHARES), choices=SHARES, help="only these")
    parser.add_argument("--part", choices=SHARES, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
