"""How much faster than lm-eval's ``HFLM`` the harness scores: ``python benchmarks/scoring.py``.

Both sides answer the same requests on the same model object in one process, taking turns; equal answers are asserted
first. ``HFLM`` runs at the best of batch sizes 1, 4 and 16, found on as many requests of each case as fill the largest. In
the case that says so, ours begins each time with a model that it has not tried out yet. ``most`` is the ratio at which ours
would do the products of what is needed, attention included, and nothing else: what no way of sharing can exceed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from scoring_cases import SHORT, Cases, read_questions

from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness.progress import quiet
from harness.run.environment import measured_peak

# HFLM's own error against float64 is about 1e-5 of a sum (see the README); ours is a hundredth of that.
TOLERANCE, RELATIVE = 1e-3, 2e-5
VLLM_CASES = ("choices, 5-shot, worded", "choices, 5-shot, letters", "generation, 5-shot")
HEADINGS = (
    ("HFLM s", 9), ("ours s", 9), ("x", 7), ("(least-most)", 14), ("bs", 4), ("bound", 7), ("share", 7), ("arith", 7),
    ("+attn", 7), ("most", 7), ("|Δ|", 9), ("MB", 13),
)  # fmt: skip


@dataclass
class Row:
    """What one case gave. Seconds are medians over rounds; ``low`` and ``high`` are the least and greatest ratio."""

    case: str
    requests: int
    theirs: float
    ours: float
    ratio: float
    low: float
    high: float
    batch_size: int
    bound: float
    share: float
    arithmetic: float
    with_attention: float
    most: float
    difference: float
    peak_ours: int
    peak_theirs: int


def main() -> int:
    """Measure and print; 1 when answers differ."""
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    lm = _load(arguments)
    cases = Cases(read_questions(arguments.questions), scale=arguments.scale, limit=arguments.limit)
    chosen = cases.main() | (cases.shapes() if arguments.shapes else {})
    if arguments.cases:
        chosen = {name: requests for name, requests in chosen.items() if any(word in name for word in arguments.cases)}
    rate = multiply_rate(lm.device, lm.model.dtype)
    print(f"{lm.model.config.model_type}, {sum(p.numel() for p in lm.model.parameters()) / 1e6:.0f} M weights, {lm.model.dtype}, "
          f"{lm.device}, {torch.get_num_threads()} threads; matrices multiply at {rate / 1e9:.0f} GFLOP/s")  # fmt: skip
    print("case".ljust(31) + "".join(heading.rjust(width) for heading, width in HEADINGS))
    rows = []
    for name, requests in chosen.items():
        row = measure(name, requests, lm, rounds=arguments.rounds, rate=rate, batch_sizes=arguments.batch_sizes)
        rows.append(row)
        print(
            f"{row.case:31}{row.theirs:>9.2f}{row.ours:>9.2f}{row.ratio:>7.2f}{f'({row.low:.2f}-{row.high:.2f})':>14}"
            f"{row.batch_size:>4}{row.bound:>7.2f}{row.share:>7.2f}{row.arithmetic:>7.2f}{row.with_attention:>7.2f}{row.most:>7.2f}{row.difference:>9.1e}"
            f"{f'{row.peak_ours / 1e6:.0f}/{row.peak_theirs / 1e6:.0f}':>13}",
            flush=True,
        )
    if arguments.vllm:
        compare_with_vllm({name: chosen[name] for name in VLLM_CASES if name in chosen}, lm, rounds=arguments.rounds)
    if arguments.output:
        arguments.output.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")
    return 0


def measure(
    name: str, requests: list[Instance], lm: CausalLM, *, rounds: int, rate: float, batch_sizes: Sequence[int]
) -> Row:
    """Time one case on both sides in turn."""
    few = _first_documents(requests, 3)
    has_choice = len(requests) > 1 and len(batch_sizes) > 1
    enough = requests[: max(batch_sizes)]  # fewer would leave the largest batch half empty, and it would look slow
    seconds = {size: _timed(_theirs(lm, size), enough)[0] if has_choice else 0.0 for size in batch_sizes}
    best = min(seconds, key=lambda size: seconds[size])
    theirs, ratios, ours_seconds, theirs_seconds = _theirs(lm, best), [], [], []
    check_equal(name, _timed(lm, few)[1], _timed(theirs, few)[1])
    for number in range(rounds):
        if name == SHORT:
            lm = CausalLM(lm.model, lm.tokenizer)
        lm.start_counting()
        with measured_peak(str(lm.device)) as our_peak:
            ours, answers = _timed(lm, requests)
        with measured_peak(str(lm.device)) as their_peak:
            other, expected = _timed(theirs, requests)
        if number == 0:
            difference = check_equal(name, answers, expected)
        ratios.append(other / ours)
        ours_seconds.append(ours)
        theirs_seconds.append(other)
    work = lm.work
    needed = work.distinct_tokens * body_flops(lm.model) + work.scored_rows * head_flops(lm.model)
    attended = work.distinct_pairs * pair_flops(lm.model)
    seconds_of_ours = statistics.median(ours_seconds)
    return Row(
        case=name,
        requests=len(requests),
        theirs=statistics.median(theirs_seconds),
        ours=seconds_of_ours,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        batch_size=best,
        bound=work.requested_tokens / max(1, work.distinct_tokens),
        share=work.share or 0.0,
        arithmetic=needed / rate / seconds_of_ours,
        with_attention=(needed + attended) / rate / seconds_of_ours,
        most=statistics.median(theirs_seconds) * rate / (needed + attended),
        difference=difference,
        peak_ours=our_peak.bytes or 0,
        peak_theirs=their_peak.bytes or 0,
    )


def compare_with_vllm(chosen: dict[str, list[Instance]], lm: CausalLM, *, rounds: int) -> None:
    """Time lm-eval's vLLM backend, installed apart, on the folder of the same model, in turn with ours."""
    from lm_eval.models.vllm_causallms import VLLM

    dtype = str(lm.model.dtype).removeprefix("torch.")
    other = VLLM(pretrained=lm.model.config._name_or_path, dtype=dtype, max_model_len=2048, batch_size="auto")
    for name, requests in chosen.items():
        ratios = []
        for _ in range(rounds):
            ours, _ = _timed(lm, requests)
            theirs, _ = _timed(other, requests)
            ratios.append(theirs / ours)
        print(f"{name:31} vLLM {theirs:.2f} s, ours {ours:.2f} s: x {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f}-{max(ratios):.2f})")  # fmt: skip


def check_equal(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Return the largest difference of two lists of answers; exit when they are not equal."""
    worst = 0.0
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        if isinstance(our, str):
            if our != their:
                sys.exit(f"{name}: text {number} differs: {our!r} is not {their!r}")
            continue
        (our_sum, our_greedy), (their_sum, their_greedy) = (
            a if isinstance(a, tuple) else (a, True) for a in (our, their)
        )
        difference = abs(our_sum - their_sum)
        if difference > max(TOLERANCE, RELATIVE * abs(their_sum)) or our_greedy != their_greedy:
            sys.exit(f"{name}: answer {number} differs: {our} is not {their}")
        worst = max(worst, difference)
    return worst


def multiply_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of large matrix multiplications here, the best of several."""
    a, b = torch.randn(1024, 1024, device=device, dtype=dtype), torch.randn(1024, 4096, device=device, dtype=dtype)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        for _ in range(4):
            torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 4 * 2 * 1024 * 1024 * 4096 / (time.perf_counter() - started))
    return best


def body_flops(model: Any) -> int:
    """Return the operations per token of the model's matrices, the output head and attention itself left out."""
    head = model.get_output_embeddings()
    return sum(2 * m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)


def pair_flops(model: Any) -> int:
    """Return the operations of attention for one token and one that it sees, in all layers."""
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 4 * int(config.num_attention_heads) * int(width) * int(config.num_hidden_layers)


def head_flops(model: Any) -> int:
    """Return the operations per row of the output head."""
    return 2 * int(model.get_output_embeddings().weight.numel())


def _theirs(lm: CausalLM, batch_size: int) -> HFLM:
    with quiet("lm_eval"):
        return HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch_size, softmax_dtype="float32")


def _timed(lm: Any, requests: list[Instance]) -> tuple[float, list[Any]]:
    started = time.perf_counter()
    with torch.no_grad(), quiet("lm_eval"), contextlib.redirect_stderr(io.StringIO()):
        kind = requests[0].request_type
        fresh = [Instance(r.request_type, {}, r.arguments, r.idx, r.metadata) for r in requests]
        answers = getattr(lm, kind)(fresh, disable_tqdm=True)
    return time.perf_counter() - started, answers


def _first_documents(requests: list[Instance], count: int) -> list[Instance]:
    return [request for request in requests if request.doc_id is not None and request.doc_id < count]


def _load(arguments: argparse.Namespace) -> CausalLM:
    if arguments.random:
        return _random_llama(arguments)
    args = {"pretrained": arguments.model} if arguments.model else {}
    lm = load_lm(resolve(args | {"dtype": arguments.dtype}), device=arguments.device, batch_size="auto")
    assert isinstance(lm, CausalLM)
    return lm


def _random_llama(arguments: argparse.Namespace) -> CausalLM:
    """Return a Llama of about a billion random weights, for a GPU without a network."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_lm(resolve({}), device="cpu", batch_size=1).tokenizer
    config = LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192, initializer_range=0.05,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(arguments.device or "cpu"):
        model = LlamaForCausalLM(config).to(getattr(torch, arguments.dtype)).eval()
    return CausalLM(model, tokenizer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="FOLDER", help="instead of the default model")
    parser.add_argument("--random", action="store_true", help="a Llama of 1.5 B random weights instead, as for a GPU")
    parser.add_argument("--dtype", default="float32", help="of the weights (default float32)")
    parser.add_argument("--device", help="as for harness eval")
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="JSON lines with question and answer; default: made up"
    )
    parser.add_argument("--cases", nargs="+", metavar="WORD", help="only cases whose name has one of the words")
    parser.add_argument("--shapes", action="store_true", help="the shapes of some twenty other tasks as well")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="pairs of measurements (default 2)")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="of HFLM (default 1 4 16)"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="S", help="share of the documents, to try it out")
    parser.add_argument(
        "--limit", type=int, default=256, metavar="N", help="tokens per generation (default lm-eval's 256)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads (default 1; 0: torch's own choice)"
    )
    parser.add_argument("--vllm", action="store_true", help="lm-eval's vLLM backend as well, where vllm is installed")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the rows as JSON lines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
