"""How long commands take before they do anything: ``python benchmarks/startup.py [--runs N]``.

Each round runs every command once, so that what else the machine does hits all alike; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

BARE, OURS, LISTING, THEIRS = "python -c pass", "harness --help", "harness plugins", "lm_eval --help"


def main() -> int:
    """Measure and print; 1 when a command fails."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error(f"--runs is {arguments.runs}; give 1 or more")
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
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="rounds (default 10)")
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
