"""Threads on a quiet and on a busy machine: ``python benchmarks/threads.py [--rounds 3] [--busy 4] [--quick]``.

A small training run and a small scoring run, each in turn by torch's own choice, with one thread, and as ``harness eval`` does
it; once with nothing beside them and once with busy loops, which this script starts and ends. "Before" are runs whose number of
threads was chosen while the machine was quiet: the busy loops come later. Each way has one process that lives from round to
round. Losses and log-likelihoods have to be the same but for rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

TORCH, ONE, OURS, BEFORE = "torch's choice", "one thread", "ours", "ours, chosen before"
WAYS = (TORCH, ONE, OURS, BEFORE)
WORK = ("training", "scoring")
STEPS, QUICK_STEPS = {"training": 8, "scoring": 4}, {"training": 4, "scoring": 2}
# The busy loops end by themselves, too, should this script be killed.
LOOP = "import os, time\nparent, end = os.getppid(), time.time() + 300\nwhile time.time() < end and os.getppid() == parent: pass"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each way (default 3)")
    parser.add_argument("--busy", type=int, default=4, metavar="N", help="busy loops beside it (default 4)")
    parser.add_argument("--quick", action="store_true", help="one round of fewer steps")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(arguments.serve)
        return 0
    if arguments.rounds < 1 or arguments.busy < 1:
        parser.error("give 1 or more to --rounds and --busy")
    steps, rounds = (QUICK_STEPS, 1) if arguments.quick else (STEPS, arguments.rounds)
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, {_load()} at the start")
    with _workers() as workers:
        for busy in (0, arguments.busy):
            with _busy(busy):
                _print(busy, _measure(workers, steps, rounds), steps)
    print(f"\n{_load()} at the end")
    return 0


def _measure(
    workers: dict[str, Any], steps: dict[str, int], rounds: int
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {(work, way): [] for work in WORK for way in WAYS}
    for number in range(rounds):
        for work in WORK:
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                found[work, way].append(_ask(workers[way], work, steps[work]))
    return found


def _print(busy: int, found: dict[tuple[str, str], list[dict[str, Any]]], steps: dict[str, int]) -> None:
    print(f"\n{busy} busy loops beside it" if busy else "\nnothing of ours beside it")
    print(f"{'':10}{'':22}{'median s':>9}{'least':>8}{'most':>8}{'x one thread':>14}{'x torch':>9}  threads  look s")
    for work in WORK:
        values = [answer["value"] for way in WAYS for answer in found[work, way]]
        if max(values) - min(values) > 1e-3 * abs(values[0]):
            sys.exit(f"{work} came out otherwise: {values}")
        for way in WAYS:
            seconds = [answer["seconds"] for answer in found[work, way]]
            ratios = [_ratio(seconds, [other["seconds"] for other in found[work, base]]) for base in (ONE, TORCH)]
            threads = ", ".join(dict.fromkeys(str(answer["threads"]) for answer in found[work, way]))
            look = max(answer["look"] for answer in found[work, way])
            print(
                f"{work:10}{way:22}{statistics.median(seconds):>9.2f}{min(seconds):>8.2f}{max(seconds):>8.2f}"
                f"{ratios[0]:>14.2f}{ratios[1]:>9.2f}  {threads:7}  {look:.2f}"
            )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of one way's seconds divided by another's."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


@contextmanager
def _busy(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    try:
        time.sleep(0.2 * bool(count))
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@contextmanager
def _workers() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start one process a way; torch's own choice is made with what the user said taken away."""
    from harness.threads import NUMBERS, WAITING

    plain = {name: value for name, value in os.environ.items() if name not in {*NUMBERS, *WAITING}}
    workers = {}
    try:
        for way in WAYS:
            environment = plain | ({"OMP_NUM_THREADS": "1"} if way == ONE else {})
            workers[way] = subprocess.Popen(
                [sys.executable, __file__, "--serve", way], env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            for work in WORK:
                _ask(workers[way], work, 1)  # once unmeasured; what is chosen before is chosen here
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def _ask(worker: Any, work: str, steps: int) -> dict[str, Any]:
    worker.stdin.write(f"{work} {steps}\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        sys.exit("a worker ended early")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _serve(way: str) -> None:
    """Do what is asked for on standard input, and tell seconds, threads and the value that came out."""
    from harness import threads

    if way in {OURS, BEFORE}:
        threads.wait_passively()
    import torch

    works, has_chosen = {"training": _training(), "scoring": _scoring()}, False
    for line in sys.stdin:
        work, steps = line.split()
        look = time.perf_counter()
        if way == OURS or (way == BEFORE and not has_chosen):
            threads.OF_THIS_PROCESS = threads.Threads()  # a command begins
            torch.set_num_threads(max(threads.usual_threads()))
            threads.OF_THIS_PROCESS.choose("cpu", 192)
            has_chosen = True
        started = time.perf_counter()
        value = works[work](int(steps))
        done = time.perf_counter()
        answer = {"seconds": done - started, "look": started - look, "threads": torch.get_num_threads(), "value": value}
        print(json.dumps(answer), flush=True)


def _model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4000, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
            num_key_value_heads=3, max_position_embeddings=1024,
        )
    )  # fmt: skip


def _training() -> Any:
    """Return a function that trains a small model anew for some steps, and returns the last loss."""
    import torch

    from harness.methods.training import Batch, train

    def work(steps: int) -> float:
        model = _model()
        ids = torch.randint(0, 4000, (4, 128), generator=torch.Generator().manual_seed(1))
        batches = [Batch(ids, ids, torch.ones_like(ids))] * steps
        with open(os.devnull, "w", encoding="utf-8") as nowhere, _said_to(nowhere):
            log = train(model, batches, steps=steps, learning_rate=1e-3, warmup_steps=1, label="training")
        return log.losses[-1]

    return work


def _scoring() -> Any:
    """Return a function that scores choices with a small model, over and over, and returns the sum."""
    from scoring_cases import WORDED, Cases, read_questions
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from harness.models.causal import CausalLM

    bytes_alone = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(bytes_alone, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>")
    lm = CausalLM(_model().eval(), tokenizer, batch_size="auto")
    requests = Cases(read_questions(None, 40)).choices(8, lambda _: WORDED, lambda _: "")

    def work(steps: int) -> float:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, _said_to(nowhere):
            return sum(score for _ in range(steps) for score, _ in lm.loglikelihood(requests)) / steps

    return work


@contextmanager
def _said_to(stream: Any) -> Iterator[None]:
    before, sys.stderr = sys.stderr, stream
    try:
        yield
    finally:
        sys.stderr = before


def _load() -> str:
    with suppress(OSError, AttributeError):
        return f"load {os.getloadavg()[0]:.1f}"
    return "load unknown"


if __name__ == "__main__":
    sys.exit(main())
