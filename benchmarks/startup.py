"""How long commands take before they do anything: ``python benchmarks/startup.py [--runs N] [--passes N] [--old FOLDER]``.

Each round runs every command once, so that what else the machine does hits all alike; ratios are taken within a round.
The last table is of one document of LangGame on the embedded model: from the command to the model's first forward pass, which
is of the try-out, and to the end. With ``--old`` a checkout of another build takes turns with this one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

BARE, OURS, LISTING, THEIRS = "python -c pass", "harness --help", "harness plugins", "lm_eval --help"

QUESTION = ["eval", "--tasks", "langgame_contains", "--limit", "1", "--no_cache", "--output_path"]
THIS = Path(__file__).resolve().parents[1]
# Runs a command, and writes down when the first pass began: the clock, and the seconds of the processor until then.
NOTING = """\
import dataclasses, os, sys, time
from harness.models import kinds

def noted(load):
    def loaded(*args):
        lm = load(*args)
        from torch.nn.modules.module import register_module_forward_pre_hook

        def note(module, inputs):
            hook.remove()
            with open(os.environ["FIRST_PASS"], "w", encoding="utf-8") as file:
                file.write(f"{time.time()} {time.process_time()}")

        hook = register_module_forward_pre_hook(note)
        return lm

    return loaded

kinds.KINDS["hf"] = dataclasses.replace(kinds.KINDS["hf"], load=noted(kinds.KINDS["hf"].load))
from harness.cli import main
sys.exit(main(sys.argv[1:]))
"""
MEASURED = ("first pass, s", "first pass, CPU s", "end, s")


def main() -> int:
    """Measure and print; 1 when a command fails."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.passes < 0:
        parser.error(f"--runs is {arguments.runs} and --passes {arguments.passes}; give 1 or more, and 0 or more")
    commands = _commands()
    for name, words in commands.items():  # once unmeasured: byte code is written, files are read from disk
        if _run(words).returncode:
            print(f"'{name}' fails ({' '.join(words)}); install token-harness into this Python", file=sys.stderr)
            return 1
    rounds = [{name: _seconds(words) for name, words in commands.items()} for _ in range(arguments.runs)]
    busy = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{arguments.runs} rounds, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, {busy} at the end\n")
    print(f"{'':16}{'median s':>10}{'least':>8}{'most':>8}{'x python -c pass':>18}{'x lm_eval --help':>18}")
    for name in commands:
        seconds = [measured[name] for measured in rounds]
        print(
            f"{name:16}{statistics.median(seconds):>10.3f}{min(seconds):>8.3f}{max(seconds):>8.3f}"
            f"{_ratio(rounds, name, BARE):>18.2f}{_ratio(rounds, name, THEIRS):>18.2f}"
        )
    return _first_passes(arguments.passes, arguments.old) if arguments.passes else 0


def _first_passes(rounds: int, old: Path | None) -> int:
    """Measure and print how long it is to the first forward pass; 1 when a command fails."""
    builds = {"this build": THIS} | ({} if old is None else {"old build": old.resolve()})
    measured: dict[str, list[tuple[float, ...]]] = {name: [] for name in builds}
    for number in range(rounds + 1):
        for name, folder in builds.items():
            seconds = _first_pass(folder)
            if seconds is None:
                print(f"one document on the embedded model fails with {folder}", file=sys.stderr)
                return 1
            measured[name] += [seconds] if number else []  # once unmeasured
    print(f"\nharness {' '.join(QUESTION[:-2])}, {rounds} rounds: median (least to most)\n")
    print(f"{'':16}" + "".join(f"{title:>26}" for title in MEASURED))
    for name, rows in measured.items():
        columns = [sorted(column) for column in zip(*rows, strict=True)]
        print(f"{name:16}" + "".join(f"{statistics.median(c):>10.2f} ({c[0]:.2f} to {c[-1]:.2f})" for c in columns))
    if old is not None:
        pairs = list(zip(measured["this build"], measured["old build"], strict=True))
        ratios = [statistics.median(new[n] / other[n] for new, other in pairs) for n in range(len(MEASURED))]
        print(f"{'ratio':16}" + "".join(f"{ratio:>26.2f}" for ratio in ratios))
    return 0


def _first_pass(folder: Path) -> tuple[float, ...] | None:
    """Return the seconds to the first pass, those of the processor, and the seconds to the end; None where there is none."""
    path = os.pathsep.join(str(part) for part in (folder, folder / "plugins", folder / "tasks"))
    with tempfile.TemporaryDirectory() as scratch:
        note = Path(scratch, "note")
        settings = os.environ | {"PYTHONPATH": path, "FIRST_PASS": str(note), "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, "-c", NOTING, *QUESTION, str(Path(scratch, "out"))]
        start = time.time()
        done = subprocess.run(words, env=settings, cwd=scratch, capture_output=True, check=False)
        end = time.time()
        if done.returncode or not note.is_file():
            return None
        first, processor = map(float, note.read_text(encoding="utf-8").split())
    return first - start, processor, end - start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="rounds (default 10)")
    parser.add_argument(
        "--passes", type=int, default=5, metavar="N", help="rounds of one document on the embedded model (default 5)"
    )
    parser.add_argument("--old", type=Path, metavar="FOLDER", help="a checkout of another build, to take turns with")
    return parser


def _commands() -> dict[str, list[str]]:
    """Return the words of each command: the scripts that pip put beside this Python."""
    scripts = Path(sys.executable).parent
    return {
        BARE: [sys.executable, "-c", "pass"],
        OURS: [str(scripts / "harness"), "--help"],
        LISTING: [str(scripts / "harness"), "plugins"],
        THEIRS: [str(scripts / "lm_eval"), "--help"],
    }


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return subprocess.CompletedProcess(words, returncode=127)


def _seconds(words: Sequence[str]) -> float:
    start = time.perf_counter()
    _run(words)
    return time.perf_counter() - start


def _ratio(rounds: Sequence[Mapping[str, float]], name: str, other: str) -> float:
    """Return the median over rounds of one command's seconds divided by another's."""
    return statistics.median(measured[name] / measured[other] for measured in rounds)


if __name__ == "__main__":
    sys.exit(main())
