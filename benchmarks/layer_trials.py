"""What other ways to compute a decoder layer would give on this CPU: ``python benchmarks/layer_trials.py``.

Each is timed in turn with the way that the harness goes, in one process, by the processor time of its thread. The ways:
queries, keys and values (and gate and up) as one product of weights laid one after the other; the tokens of waiting prompts in
the pass of the texts under way; a layer by ``torch.compile``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness.models.tree.products import few_rows
from harness.models.tree.quick_layers import QuickLayers

Tensor = torch.Tensor
ROWS = (1, 4, 8, 24, 100, 500)
# Texts under way, and tokens of prompts that wait.
TOGETHER = ((4, 60), (8, 60), (24, 60), (32, 60), (32, 240))
CPU = torch.device("cpu")


def main() -> int:
    """Measure and print."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    model = {"pretrained": arguments.model} if arguments.model else {}
    lm = load_lm(resolve(model | {"dtype": "float32"}), device="cpu", batch_size=1)
    assert isinstance(lm, CausalLM)
    trials = {"concatenated": concatenated, "together": together, "compiled": compiled}
    for name in arguments.trials:
        print(f"\n{name}: milliseconds of all layers, medians of {arguments.rounds} turns")
        trials[name](lm.model, arguments.rounds)
    return 0


def concatenated(model: Any, rounds: int) -> None:
    """Time products with weights apart, apart and copied as the concatenation is, and as one."""
    layers = [_weights(layer) for layer in model.model.layers]
    ways: dict[str, list[list[Tensor]]] = {
        "apart": [[w for group in layer for w in group] for layer in layers],
        "apart, copied": [[w.clone() for group in layer for w in group] for layer in layers],
        "as one": [[torch.cat(group) for group in layer] for layer in layers],
    }
    print("rows".rjust(6) + "".join(way.rjust(15) for way in ways) + "one / copied".rjust(14))
    for rows in ROWS:
        x = torch.randn(rows, layers[0][0][0].shape[1])
        seconds = in_turn({way: _multiply(x, several) for way, several in ways.items()}, rounds)
        print(f"{rows:>6}" + "".join(f"{1e3 * s:>15.1f}" for s in seconds.values())
              + f"{seconds['as one'] / seconds['apart, copied']:>14.2f}", flush=True)  # fmt: skip


def together(model: Any, rounds: int) -> None:
    """Time all products of a step and of a prompt's pass, one after the other and with all rows at once."""
    weights = [m.weight for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    print("texts".rjust(6) + "prompt".rjust(8) + "two passes".rjust(12) + "one pass".rjust(10) + "ratio".rjust(7))
    for texts, prompt in TOGETHER:
        widths, counts = {w.shape[1] for w in weights}, (texts, prompt, texts + prompt)
        of = {rows: {width: torch.randn(rows, width) for width in widths} for rows in counts}

        def run(rows: int, of: dict[int, dict[int, Tensor]] = of) -> None:
            with few_rows(rows, CPU):
                for weight in weights:
                    torch.nn.functional.linear(of[rows][weight.shape[1]], weight)

        def apart(texts: int = texts, prompt: int = prompt, run: Callable[[int], None] = run) -> None:
            run(texts)
            run(prompt)

        def at_once(rows: int = texts + prompt, run: Callable[[int], None] = run) -> None:
            run(rows)

        seconds = in_turn({"apart": apart, "at once": at_once}, rounds)
        print(f"{texts:>6}{prompt:>8}{1e3 * seconds['apart']:>12.1f}{1e3 * seconds['at once']:>10.1f}"
              f"{seconds['at once'] / seconds['apart']:>7.2f}", flush=True)  # fmt: skip


def compiled(model: Any, rounds: int) -> None:
    """Time a layer by ``torch.compile``, for any number of tokens, with torch's attention on both sides."""
    layer, quick = model.model.layers[0], QuickLayers(model)
    model.set_attn_implementation("sdpa")
    started = time.perf_counter()
    fast = torch.compile(layer, dynamic=True)
    with torch.no_grad():
        x, more = _inputs(model, 32)
        fast(x, **more)
    print(f"first call {time.perf_counter() - started:.1f} s (of a second process, with TORCHINDUCTOR_CACHE_DIR, less)")
    print("rows".rjust(6) + "ours".rjust(10) + "compiled".rjust(10) + "ratio".rjust(7) + "difference".rjust(12))
    for rows in (8, 24, 500):
        x, more = _inputs(model, rows)

        def ours(x: Tensor = x, more: dict[str, Any] = more, rows: int = rows) -> Tensor:
            with quick.used(), few_rows(rows, CPU):
                return _first(layer(x, **more))

        def other(x: Tensor = x, more: dict[str, Any] = more) -> Tensor:
            return _first(fast(x, **more))

        difference = float((ours() - other()).abs().max())
        seconds = in_turn({"ours": ours, "other": other}, 5 * rounds)
        print(f"{rows:>6}{1e3 * seconds['ours']:>10.2f}{1e3 * seconds['other']:>10.2f}"
              f"{seconds['other'] / seconds['ours']:>7.2f}{difference:>12.1e}", flush=True)  # fmt: skip


def in_turn(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of processor time of each way, after one turn that does not count."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + rounds):
        for way, run in ways.items():
            started = time.thread_time()
            run()
            seconds[way].append(time.thread_time() - started)
    return {way: statistics.median(several[1:]) for way, several in seconds.items()}


def _weights(layer: Any) -> tuple[list[Tensor], list[Tensor]]:
    attention, mlp = layer.self_attn, layer.mlp
    return (
        [of.weight for of in (attention.q_proj, attention.k_proj, attention.v_proj)],
        [mlp.gate_proj.weight, mlp.up_proj.weight],
    )


def _multiply(x: Tensor, layers: list[list[Tensor]]) -> Callable[[], None]:
    def run() -> None:
        with few_rows(len(x), CPU):
            for weights in layers:
                for weight in weights:
                    torch.nn.functional.linear(x, weight)

    return run


def _inputs(model: Any, rows: int) -> tuple[Tensor, dict[str, Any]]:
    x = torch.randn(1, rows, model.config.hidden_size)
    places = torch.arange(rows)[None]
    return x, {"position_embeddings": model.model.rotary_emb(x, places), "position_ids": places}


def _first(out: Any) -> Tensor:
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = "concatenated, together, compiled (default: the first two; the third compiles for a minute)"
    parser.add_argument("trials", nargs="*", default=["concatenated", "together"], metavar="TRIAL", help=names)
    parser.add_argument(
        "--model", metavar="FOLDER", help="a model with layers as Llama's, instead of the default model"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns (default 7)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads (default 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
