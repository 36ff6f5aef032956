"""Seconds and memory of a training step: ``python benchmarks/training.py [--rows 2] [--tokens 256] [--old FOLDER]``.

LoRA on the embedded model, one thread, each side in processes of its own, in turn: ours, transformers' ``Trainer`` with the same
adapter, batch and optimiser, and an older checkout of ours where ``--old`` names one. Losses have to agree to 1e-4 before
anything is printed. Seconds are of the processor; the first step of each process is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LEARNING_RATE = 1e-4


def main() -> None:
    """Run the sides in turn, compare their losses and print the table; or be one side."""
    arguments = _parser().parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments)))
        return
    places = {"ours": ROOT, "trainer": ROOT} | ({"old": arguments.old} if arguments.old else {})
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in places}
    for _ in range(arguments.rounds):
        for side, folder in places.items():
            found[side].append(_run(side, folder, arguments))
    wanted = found["ours"][0]["losses"]
    for side, rounds in found.items():
        apart = max(abs(a - b) for one in rounds for a, b in zip(one["losses"], wanted, strict=True))
        assert apart < 1e-4, f"losses of {side} differ by {apart:.2g}"
    print("| side | s a step, median (least-most) | peak MB |\n|---|---|---|")
    for side, rounds in found.items():
        seconds = [second for one in rounds for second in one["seconds"][1:] or one["seconds"]]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        print(f"| {side} | {spread} | {max(one['peak'] for one in rounds) / 1e6:,.0f} |")
    if not arguments.old:
        print("no older build was measured: --old names a checkout")


def _run(side: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    path = os.pathsep.join(str(folder / part) for part in (".", "plugins", "tasks"))
    name = "ours" if side == "old" else side
    command = [sys.executable, __file__, "--side", name]
    command += [f"--{key}={getattr(arguments, key)}" for key in ("rows", "tokens", "steps")]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} ended with {done.returncode}: {done.stderr[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _begin(arguments: argparse.Namespace) -> tuple[Any, list[list[int]]]:
    import pydoc_data.topics

    import torch

    from harness.methods import adapters
    from harness.models.finding import resolve
    from harness.models.loading import load_lm

    torch.set_num_threads(1)
    lm = load_lm(resolve({}), device="cpu", batch_size=1)
    model = adapters.add_adapter(lm.model, rank=16, alpha=32.0, target_modules=["all-linear"], seed=0)
    ids = lm.tokenizer.encode("\n".join(pydoc_data.topics.topics.values()), add_special_tokens=False)
    count, length = arguments.rows * arguments.steps, arguments.tokens
    return model, [ids[number * length : (number + 1) * length] for number in range(count)]


def _ours(arguments: argparse.Namespace) -> dict[str, Any]:
    from harness.methods import training

    model, windows = _begin(arguments)
    marks: list[float] = []

    def batches() -> Iterator[training.Batch]:
        for step in range(arguments.steps):
            marks.append(time.process_time())
            chosen = windows[step * arguments.rows : (step + 1) * arguments.rows]
            yield training.pad([(window, window) for window in chosen])

    settings: dict[str, Any] = {"learning_rate": LEARNING_RATE, "warmup_steps": 0, "label": "Training"}
    log = training.train(model, batches(), steps=arguments.steps, **settings)
    marks.append(time.process_time())
    return _figures(log.losses, marks)


def _trainer(arguments: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from harness.methods.training import FLOOR

    def rate(step: int) -> float:
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / arguments.steps))

    model, windows = _begin(arguments)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    marks: list[float] = []
    losses: list[float] = []

    class Marks(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    rows = [{"input_ids": torch.tensor(window), "labels": torch.tensor(window)} for window in windows]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder, max_steps=arguments.steps, per_device_train_batch_size=arguments.rows, report_to=[],
            logging_steps=1, save_strategy="no", max_grad_norm=1.0, use_cpu=True, train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = Trainer(model=model, args=options, train_dataset=rows, optimizers=(optimizer, schedule))
        trainer.add_callback(Marks())
        trainer.train()
    marks.append(time.process_time())
    return _figures(losses, marks)


def _figures(losses: list[float], marks: list[float]) -> dict[str, Any]:
    import resource

    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return {"losses": losses, "seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


SIDES = {"ours": _ours, "trainer": _trainer}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2, help="windows per step")
    parser.add_argument("--tokens", type=int, default=256, help="tokens per window")
    parser.add_argument("--steps", type=int, default=2, help="steps per process")
    parser.add_argument("--rounds", type=int, default=1, help="processes per side, in turn")
    parser.add_argument("--old", type=Path, help="folder of an older checkout")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
