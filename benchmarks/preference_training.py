"""Seconds and memory of preference learning: ``benchmarks/preference_training.py --trl_python ENVIRONMENT/bin/python``.

Plain DPO with LoRA, one thread, on the same pairs in the same order from the same first weights, each side in a process of its
own, in turn: ours, TRL's ``DPOTrainer`` in its adapter mode (the reference is the base with the adapter off), and TRL's with a
copy of the model as the reference. Losses of all steps have to agree to 1e-4 before anything is printed. Seconds are of the
processor; the first step of each process is not counted. The pass that asks our reference once is shown apart, per pair.

The other side's environment (any folder will do):

    python -m venv trl && trl/bin/pip install trl==1.16.0 transformers==5.24.0 peft==0.21.2 torch
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BETA, RANK, ALPHA, FLOOR = 0.1, 16, 32.0, 0.1
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TOLERANCE = 1e-4


def main() -> None:
    """Run the sides in turn, compare their losses and print the table; or be one side."""
    arguments = _parser().parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments)))
        return
    found: dict[str, list[dict[str, Any]]] = {"ours": []} | (
        {} if arguments.trl_python is None else {"trl": [], "trl_copy": []}
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = Path(folder)
        _prepare(arguments)
        for _ in range(arguments.rounds):
            for side in found:
                found[side].append(_run(side, arguments))
    _check(found)
    print(f"{arguments.rows} pairs a step, {arguments.steps} steps, largest difference of a loss {_apart(found):.1e}\n")
    print("| side | s a step, median (least-most) | over ours | peak MB | over ours | reference, s a pair |")
    print("|---|---|---|---|---|---|")
    ours = _summary(found["ours"])
    for side, rounds in found.items():
        print(_row(side, _summary(rounds), ours))
    if arguments.trl_python is None:
        print("TRL was not measured: --trl_python names the Python of an environment that has it")


def _check(found: dict[str, list[dict[str, Any]]]) -> None:
    for side, rounds in found.items():
        first = rounds[0]["losses"][0]
        assert abs(first - math.log(2)) < TOLERANCE, f"{side} begins at a loss of {first}, which is not ln 2"
        assert {one["pairs"] for one in rounds} == {found["ours"][0]["pairs"]}, f"{side} dropped pairs"
    assert _apart(found) < TOLERANCE, f"losses differ by {_apart(found):.2g}: " + json.dumps(
        {side: rounds[0]["losses"] for side, rounds in found.items()}
    )


def _apart(found: dict[str, list[dict[str, Any]]]) -> float:
    wanted = found["ours"][0]["losses"]
    return max(
        abs(a - b) for rounds in found.values() for one in rounds for a, b in zip(one["losses"], wanted, strict=True)
    )


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [second for one in rounds for second in one["seconds"][1:] or one["seconds"]]
    reference = [one["reference"] / one["pairs"] for one in rounds if "reference" in one]
    return {"seconds": seconds, "peak": max(one["peak"] for one in rounds), "reference": reference}


def _row(side: str, its: dict[str, Any], ours: dict[str, Any]) -> str:
    middle, own = statistics.median(its["seconds"]), statistics.median(ours["seconds"])
    spread = f"{middle:.2f} ({min(its['seconds']):.2f}-{max(its['seconds']):.2f})"
    reference = f"{statistics.median(its['reference']):.2f}" if its["reference"] else "in each step"
    peak, share = f"{its['peak'] / 1e6:,.0f}", f"{its['peak'] / ours['peak']:.2f}"
    return f"| {side} | {spread} | {middle / own:.2f} | {peak} | {share} | {reference} |"


def _prepare(arguments: argparse.Namespace) -> None:
    """Write the pairs, and the place of the model's folder, for all sides."""
    from harness.json_lines import read_json_lines
    from harness.models.default_model import default_model_folder

    count = arguments.rows * arguments.steps
    rows = (
        made_up(count)
        if arguments.pairs is None
        else read_json_lines(arguments.pairs, dict.fromkeys(KEYS, str))[:count]
    )
    lines = "".join(json.dumps({key: row[key] for key in KEYS}) + "\n" for row in rows)
    (arguments.work / "pairs.jsonl").write_text(lines, encoding="utf-8")
    arguments.model = arguments.model or default_model_folder()


def _run(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    python = sys.executable if side == "ours" else str(arguments.trl_python)
    command = [python, __file__, "--side", side, f"--work={arguments.work}", f"--model={arguments.model}"]
    command += [f"--{key}={getattr(arguments, key)}" for key in ("rows", "steps", "learning_rate")]
    path = os.pathsep.join(str(ROOT / part) for part in (".", "plugins", "tasks"))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": path if side == "ours" else "",
    }
    done = subprocess.run(command, env=environment, cwd=arguments.work, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} ended with {done.returncode}: {done.stderr[-1500:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _ours(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from harness.methods import adapters, training
    from harness.models.finding import resolve
    from harness.models.loading import load_lm
    from harness_critical_tokens import policy
    from harness_critical_tokens.encoded_pairs import encode_pairs
    from harness_critical_tokens.loss import pair_losses
    from harness_critical_tokens.pairs_file import read_pairs

    torch.set_num_threads(1)
    lm = load_lm(resolve({"pretrained": str(arguments.model)}), device="cpu", batch_size=1)
    encoded = encode_pairs(lm, read_pairs(arguments.work / "pairs.jsonl"), max_length=None, is_chat=False)
    model = adapters.add_adapter(lm.model, rank=RANK, alpha=ALPHA, target_modules=LINEAR, seed=0, name="policy")
    if not (arguments.work / "start").is_dir():
        (arguments.work / "start").mkdir()
        adapters.save_adapter(model, arguments.work / "start", name="policy")
    started = time.process_time()
    references = policy.reference_loglikelihoods(model, encoded.responses)
    reference = time.process_time() - started
    ones = [([1.0] * len(chosen.offsets), [1.0] * len(rejected.offsets)) for chosen, rejected in encoded.responses]
    pairs = policy.WeightedPairs(encoded.responses, ones, references)
    marks: list[float] = []

    def batches() -> Iterator[training.Batch]:
        for step in range(arguments.steps):
            marks.append(time.process_time())
            yield pairs.batch(range(step * arguments.rows, (step + 1) * arguments.rows))

    def loss(tuned: torch.nn.Module, batch: training.Batch) -> torch.Tensor:
        chosen, rejected = policy.responses(tuned, batch)
        return pair_losses(chosen, rejected, beta=BETA).mean()

    settings: dict[str, Any] = {"learning_rate": arguments.learning_rate, "warmup_steps": 0, "label": "Training"}
    log = training.train(model, batches(), steps=arguments.steps, loss=loss, mean_of="pairs", **settings)
    marks.append(time.process_time())
    return _figures(log.losses, marks, len(encoded.pairs)) | {"reference": reference}


def _trl(arguments: argparse.Namespace, *, is_copy: bool = False) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(1)

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)

    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(LINEAR), lora_dropout=0.0, task_type="CAUSAL_LM")
    rows = [json.loads(line) for line in (arguments.work / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    marks: list[float] = []
    losses: list[float] = []

    class Marks(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

    class Told(DPOTrainer):  # type: ignore[misc,unused-ignore]
        def compute_loss(self, *positional: Any, **named: Any) -> Any:
            value = super().compute_loss(*positional, **named)
            losses.append(float(value.detach()))  # its own log has four digits
            return value

    options = DPOConfig(
        output_dir=str(arguments.work / "trl"), beta=BETA, max_steps=arguments.steps, use_cpu=True, bf16=False, report_to=[],
        per_device_train_batch_size=arguments.rows, gradient_checkpointing=False, max_length=None, logging_steps=1,
        save_strategy="no", max_grad_norm=1.0, train_sampling_strategy="sequential", disable_tqdm=True,
        learning_rate=arguments.learning_rate,
    )  # fmt: skip
    given: dict[str, Any] = (
        {"model": get_peft_model(load(), lora), "ref_model": load()}
        if is_copy
        else {"model": load(), "peft_config": lora}
    )
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    trainer = Told(args=options, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **given)
    model = trainer.model
    set_peft_model_state_dict(model, load_peft_weights(str(arguments.work / "start"), device="cpu"))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainer.optimizer = torch.optim.AdamW(weights, lr=arguments.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        trainer.optimizer, lambda step: FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / arguments.steps))
    )
    trainer.add_callback(Marks())
    trainer.train()
    marks.append(time.process_time())
    return _figures(losses, marks, len(trainer.train_dataset))


def _trl_copy(arguments: argparse.Namespace) -> dict[str, Any]:
    return _trl(arguments, is_copy=True)


def _figures(losses: list[float], marks: list[float], pairs: int) -> dict[str, Any]:
    import resource

    seconds = [after - before for before, after in itertools.pairwise(marks)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"losses": losses, "seconds": seconds, "peak": peak, "pairs": pairs}


SIDES = {"ours": _ours, "trl": _trl, "trl_copy": _trl_copy}
KEYS = ("prompt", "chosen", "rejected")


def made_up(count: int) -> list[dict[str, str]]:
    """Return arithmetic stories with a right and a wrong solution, the same ones each time."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        a, b, c = draw.randint(11, 90), draw.randint(2, 9), draw.randint(11, 60)
        right, wrong = a * b, a * b + draw.choice([-10, 10, 20])
        question = (
            f"Question: A shop has {a} boxes with {b} pears each. Then {c} pears are sold. How many pears are left?"
        )
        rows.append({
            "prompt": f"{question}\nAnswer:",
            "chosen": f" At first there are {a} * {b} = {right} pears. After the sale {right} - {c} = {right - c} are left. "
            f"The answer is {right - c}.",
            "rejected": f" From {a} boxes of {b} pears we have {a} * {b} = {wrong}. Taking {c} away gives {wrong} - {c} = "
            f"{wrong - c}. So the answer is {wrong - c}.",
        })  # fmt: skip
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl_python", type=Path, help="Python of an environment that has TRL")
    parser.add_argument("--model", type=Path, help="model folder (default: the embedded model)")
    parser.add_argument("--pairs", type=Path, help=".jsonl with prompt, chosen, rejected (default: made up)")
    parser.add_argument("--rows", type=int, default=4, help="pairs per step")
    parser.add_argument("--steps", type=int, default=10, help="steps per process")
    parser.add_argument("--learning_rate", type=float, default=1e-4, help="peak of AdamW's rate")
    parser.add_argument("--rounds", type=int, default=1, help="processes per side, in turn")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
