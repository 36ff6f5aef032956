"""Rollouts from every prefix of one solution, ours and through ``HFLM.generate_until``: ``python benchmarks/rollouts.py``.

Ours: each rollout counted at all prefixes that it passes (with reuse), and each prefix with rollouts of its own (without), the
solution's keys computed once. Theirs: for each prefix its text, N requests with the same sampling settings, at the best of some
batch sizes, found on one prefix. Theirs may be asked every few prefixes alone, its seconds then scaled to all; that is said. Both
sides are given the same room; theirs counts it from the prefix, ours from the solution's end, so theirs never writes more.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness.methods.rollout_plans import Everywhere, alongs
from harness.methods.rollouts import Drawing, Trajectory, roll_out
from harness.models import finding, loading
from harness.models.causal import CausalLM
from harness.progress import quiet
from harness_critical_tokens import verify
from harness_critical_tokens.encoding import Encoded, encode

PROMPT = "Question: A depot holds 58 crates. A lorry brings 34 more. Then 17 crates are sold. How many crates are left?\nAnswer:"
# 68 + 34 where 58 + 34 is due; what follows is consistent.
SOLUTION = (
    " There are 58 crates at first. With 34 more there are 68 + 34 = 102 crates. After 17 are sold, there are 102 - 17 = 85 "
    "crates left. So the answer is 85."
)
GOLD = "75"


def main() -> int:
    """Print seconds, new tokens and the share of right rollouts of each side, and the median ratios."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    source = finding.resolve({"pretrained": arguments.model} if arguments.model else {}, quantization="none")
    lm = loading.load_lm(source, device=arguments.device, batch_size="auto")
    row = encode(lm, PROMPT, SOLUTION)
    places = list(range(row.response_start + 1, len(row.token_ids)))
    print(
        f"a solution of {len(row.response_ids)} tokens after {row.response_start}, {arguments.rollouts} rollouts each"
    )
    ours(lm, row, places[-2:], arguments, seed=99, reuse=True)  # tried out
    size = best_size(lm, row, places, arguments)
    asked = places[:: arguments.every]
    found: dict[str, list[float]] = {"reuse": [], "apart": [], "HFLM": []}
    for number in range(arguments.rounds):
        for name in found if number % 2 == 0 else reversed(found):
            if name == "HFLM":
                seconds, tokens, right = theirs(lm, row, asked, arguments, size=size)
                seconds, tokens = seconds * len(places) / len(asked), round(tokens * len(places) / len(asked))
            else:
                seconds, tokens, right = ours(lm, row, places, arguments, seed=number, reuse=name == "reuse")
            found[name].append(seconds)
            print(f"round {number + 1}  {name:6}{seconds:9.1f} s{tokens:9,} new tokens   right {right:.3f}", flush=True)
    for name in ("reuse", "apart"):
        ratios = [theirs / mine for theirs, mine in zip(found["HFLM"], found[name], strict=True)]
        print(f"HFLM / ours, {name:6}{statistics.median(ratios):7.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")
    scaled = f", asked for {len(asked)} of {len(places)} prefixes and scaled" if arguments.every > 1 else ""
    print(f"HFLM at batch size {size}{scaled}")
    return 0


def ours(
    lm: CausalLM, row: Encoded, places: Sequence[int], arguments: argparse.Namespace, *, seed: int, reuse: bool
) -> tuple[float, int, float]:
    """Return seconds, tokens that were drawn and put through the model, and the share of right rollouts."""
    drawing = Drawing(seed, temperature=0.7, top_p=0.95, most_tokens=arguments.tokens, until=verify.STOPS)
    trajectory = Trajectory(tuple(row.token_ids), row.response_start, "benchmark")
    started = time.perf_counter()
    along = alongs(lm, [trajectory], drawing)[0] if reuse else None
    plan = Everywhere(trajectory, places, count=arguments.rollouts, along=along)
    roll_out(lm, [plan], drawing)
    seconds = time.perf_counter() - started
    distinct = {name: rollout for found in plan.found.values() for name, rollout in found.items()}
    rights = [is_right(lm, r.whole(trajectory)) for found in plan.found.values() for r in found.values()]
    return seconds, sum(len(rollout.token_ids) for rollout in distinct.values()), statistics.fmean(rights)


def theirs(
    lm: CausalLM, row: Encoded, places: Sequence[int], arguments: argparse.Namespace, *, size: int
) -> tuple[float, int, float]:
    """Return the same of ``HFLM.generate_until``; tokens are those of its texts."""
    hflm = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=size, softmax_dtype="float32")
    settings = {
        "until": list(verify.STOPS), "max_gen_toks": arguments.tokens, "do_sample": True, "temperature": 0.7, "top_p": 0.95,
        "top_k": 0,
    }  # fmt: skip
    texts = [lm.tokenizer.decode(row.token_ids[:place]) for place in places]
    requests = [
        Instance("generate_until", {}, (text, dict(settings)), 0, ("benchmark", number, 1))
        for number, text in enumerate(texts)
        for _ in range(arguments.rollouts)
    ]
    started = time.perf_counter()
    with quiet("transformers.generation.utils"):
        answers: list[str] = hflm.generate_until(requests, disable_tqdm=True)
    seconds = time.perf_counter() - started
    tokens = sum(len(lm.tokenizer.encode(answer, add_special_tokens=False)) for answer in answers)
    wholes = [request.args[0] + answer for request, answer in zip(requests, answers, strict=True)]
    rights = [verify.is_right(whole[len(PROMPT) :], GOLD, "number") for whole in wholes]
    return seconds, tokens, statistics.fmean(rights)


def best_size(lm: CausalLM, row: Encoded, places: Sequence[int], arguments: argparse.Namespace) -> int:
    """Return the batch size at which ``HFLM`` is fastest on the middle prefix."""
    middle = [places[len(places) // 2]]
    return min(arguments.sizes, key=lambda size: theirs(lm, row, middle, arguments, size=size)[0])


def is_right(lm: CausalLM, token_ids: Sequence[int]) -> bool:
    """Return whether the response of these ids gives the right answer."""
    tokenizer: Any = lm.tokenizer
    return verify.is_right(tokenizer.decode(list(token_ids), skip_special_tokens=True), GOLD, "number")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model", metavar="PATH", help="a model's folder; by default the embedded SmolLM2-135M-Instruct"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; by default what there is")
    parser.add_argument("--rollouts", type=int, default=16, metavar="N", help="from each prefix (default 16)")
    parser.add_argument("--tokens", type=int, default=48, metavar="N", help="the most new ones of each (default 48)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="ask HFLM every N prefixes (default 1)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[8, 16, 32], metavar="N", help="batch sizes HFLM may have"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times each side is run (default 3)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the CPU (default 1)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
