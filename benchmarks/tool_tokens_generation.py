"""What tools cost while none fires: ``python benchmarks/tool_tokens_generation.py``, pairs in one process.

The same prompts are answered by the plain ``CausalLM`` and by the LM with tools, in turn, with a bias that lets no tool
fire: the texts have to be equal, and so the same number of tokens is generated. ``--calls`` also times answers in which tools
do fire.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance

from harness.models import finding, loading
from harness.models.causal import CausalLM
from harness_tool_tokens.method import ToolTokens


def main() -> int:
    """Print the seconds of each side and the median ratio of pairs; 1 when texts differ."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    source = finding.resolve({"pretrained": arguments.model} if arguments.model else {}, quantization="none")
    plain = loading.load_lm(source, device=arguments.device, batch_size="auto")
    silent = with_tools(plain, -1e9)
    asked = requests(arguments.prompts, arguments.tokens)
    answer(plain, asked[:2]), answer(silent, asked[:2])  # tried out
    pairs = []
    for number in range(arguments.pairs):
        sides = [plain, silent] if number % 2 == 0 else [silent, plain]
        found = {id(side): answer(side, asked) for side in sides}
        if found[id(plain)][1] != found[id(silent)][1]:
            print("the texts differ, so the times mean nothing")
            return 1
        pairs.append((found[id(plain)][0], found[id(silent)][0]))
    ratios = [with_ / without for without, with_ in pairs]
    print(f"{len(asked)} prompts, up to {arguments.tokens} tokens each, texts equal in all {len(pairs)} pairs")
    print(f"plain           {statistics.median(p for p, _ in pairs):7.2f} s")
    print(f"13 tools, silent{statistics.median(t for _, t in pairs):7.2f} s")
    print(f"ratio           {statistics.median(ratios):7.3f}   ({min(ratios):.3f} to {max(ratios):.3f})")
    if arguments.calls is not None:
        calling = with_tools(plain, arguments.calls)
        seconds, texts = answer(calling, asked)
        traces: list[Any] = [getattr(text, "trace", []) for text in texts]
        print(f"with bias {arguments.calls:g}: {seconds:.2f} s, {sum(map(len, traces))} calls")
    return 0


def with_tools(lm: CausalLM, bias: float) -> CausalLM:
    """Return ``lm`` with the arithmetic tools, their rows at the prior."""
    with tempfile.TemporaryDirectory() as folder:
        made = ToolTokens(bias=bias).apply(lm, seed=0, workdir=Path(folder))
    assert isinstance(made, CausalLM)
    return made


def requests(count: int, tokens: int) -> list[Instance]:
    """Return questions after three worked examples, all with the same beginning."""
    draws = random.Random(0)
    shots = "".join(
        f"Q: A shop sells {a} pens and {b} books. How many things is that?\nA: The shop sells {a}+{b}={a + b} things.\n\n"
        for a, b in ((12, 7), (40, 15), (8, 31))
    )
    found = []
    for number in range(count):
        first, second = draws.randrange(10, 900), draws.randrange(10, 900)
        thing = draws.choice(["apples", "lamps", "stamps", "chairs", "tickets", "bricks"])
        text = (
            f"{shots}Q: A farm has {first} {thing} and buys {second} more. How many {thing} does it have, and why?\nA:"
        )
        settings = {"until": ["\n\n"], "max_gen_toks": tokens, "do_sample": False}
        found.append(Instance("generate_until", {}, (text, settings), 0, metadata=("benchmark", number, 1)))
    return found


def answer(lm: CausalLM, asked: list[Instance]) -> tuple[float, list[str]]:
    """Return the seconds it took, and the texts."""
    ask: Callable[..., list[str]] = lm.generate_until
    started = time.perf_counter()
    texts = ask(asked, disable_tqdm=True)
    return time.perf_counter() - started, texts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model", metavar="PATH", help="a model's folder; by default the embedded SmolLM2-135M-Instruct"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; by default what there is")
    parser.add_argument("--prompts", type=int, default=24, metavar="N", help="how many (default 24)")
    parser.add_argument(
        "--tokens", type=int, default=48, metavar="N", help="the most to generate for each (default 48)"
    )
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="times each side is run (default 5)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the CPU (default 1)")
    parser.add_argument(
        "--calls", type=float, metavar="BIAS", help="also time answers with this bias, in which tools fire"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
