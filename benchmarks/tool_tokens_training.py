"""How much faster tool rows train on frozen states: ``python benchmarks/tool_tokens_training.py [--rows N] [--epochs E]``.

Against the plain loop, which runs the model on each text in every epoch and makes the softmax over all words and tools. Both
sides see the same texts in the same order in one process with one thread; equal losses of every step and equal rows are
asserted before anything is printed.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from pathlib import Path

import torch

from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness_tool_tokens.rows.naming import prior_texts
from harness_tool_tokens.rows.prior import prior_rows
from harness_tool_tokens.rows.settings import Settings
from harness_tool_tokens.rows.states import frozen_states
from harness_tool_tokens.rows.texts import FIRST_TOOL, IGNORED, CallPlace, Encoded, Row, encode_rows, read_rows
from harness_tool_tokens.rows.training import epoch_order, train
from harness_tool_tokens.tools.toolbox import Toolbox

# Relative, of each loss, and of the norm of all rows; Adam makes steps of full length out of gradients near 0.
LOSS_TOLERANCE, ROWS_TOLERANCE = 1e-5, 1e-3
STORIES = (
    ("add", "+", "{a} geese were on the pond and {b} more came. How many are there?", "There are {a}+{b}={r} geese."),
    ("subtract", "-", "Of {a} letters, {b} were answered. How many were not?", "That leaves {a}-{b}={r} letters."),
    ("multiply", "*", "{a} boxes hold {b} nails each. How many nails are there?", "{a} boxes hold {a}*{b}={r} nails."),
    ("divide", "/", "{a} coins are shared by {b} sailors. How many does each get?", "Each gets {a}/{b}={r} coins."),
)


def main() -> None:
    """Train both ways, check that the results agree, print seconds and ratios."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    toolbox = Toolbox.load(["arithmetic"])
    lm = load_lm(resolve({"pretrained": arguments.model} if arguments.model else {}), device="cpu", batch_size="auto")
    rows = (
        read_rows(arguments.train_file, toolbox)[: arguments.rows] if arguments.train_file else made_up(arguments.rows)
    )
    encoded = encode_rows(lm, rows, toolbox)
    start = prior_rows(lm, prior_texts(toolbox), prior="head_rows")
    settings = Settings(learning_rate=arguments.learning_rate, epochs=arguments.epochs)

    started = time.perf_counter()
    states = frozen_states(lm, encoded, cache=False)
    frozen_seconds = time.perf_counter() - started
    started = time.perf_counter()
    ours, report = train(states, start, start, settings)
    epoch_seconds = time.perf_counter() - started
    theirs, losses, plain_seconds = plain_loop(lm, encoded, start, settings)

    loss_difference = max(abs(a - b) / b for a, b in zip(report["losses"], losses, strict=True))
    rows_difference = float((ours - theirs).norm() / theirs.norm())
    assert loss_difference <= LOSS_TOLERANCE, f"losses differ by {loss_difference:.1e} of themselves"
    assert rows_difference <= ROWS_TOLERANCE, f"rows differ by {rows_difference:.1e} of themselves"
    print(f"{len(rows)} texts, {len(states):,} positions, {arguments.epochs} epochs, {len(losses):,} steps; one thread")
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {lm.model.dtype}")
    print(f"largest difference of a loss {loss_difference:.1e}, of the rows {rows_difference:.1e}, relative\n")
    print(f"{'':34}{'seconds':>10}{'x':>10}")
    show("plain loop", plain_seconds, plain_seconds)
    show("frozen pass", frozen_seconds, None)
    show("epochs on frozen states", epoch_seconds, plain_seconds)
    show("frozen pass and epochs", frozen_seconds + epoch_seconds, plain_seconds)


def plain_loop(
    lm: CausalLM, encoded: list[Encoded], start: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, list[float], float]:
    """Return the rows, the loss of every step and the seconds of the straightforward way to train them.

    Losses are computed once more in float64 while the clock stands still: over this many words torch's cross-entropy in
    float32 is up to 7e-6 off.
    """
    model = lm.model.eval().requires_grad_(False)
    head = model.get_output_embeddings()
    rows = start.clone().requires_grad_()
    adam, losses, seconds = torch.optim.Adam([rows], lr=settings.learning_rate), [], 0.0
    for epoch in range(settings.epochs or 0):
        for number in epoch_order(len(encoded), seed=settings.seed, epoch=epoch):
            started = time.perf_counter()
            ids, targets = encoded[number].token_ids, encoded[number].targets
            with torch.no_grad():
                hidden = model.base_model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
                words = head(hidden).float()
            logits = torch.cat([words, hidden.float() @ rows.T], 1)
            tools = words.shape[1] + FIRST_TOOL
            labels = torch.tensor([-100 if t == IGNORED else t if t >= 0 else tools - t for t in targets])
            loss = torch.nn.functional.cross_entropy(logits, labels)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            adam.step()
            seconds += time.perf_counter() - started
            losses.append(torch.nn.functional.cross_entropy(logits.detach().double(), labels).item())
    return rows.detach(), losses, seconds


def made_up(count: int) -> list[Row]:
    """Return texts with one call each, the same ones each time."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        tool, sign, question, answer = STORIES[number % len(STORIES)]
        b = draw.randint(2, 40)
        a = b * draw.randint(2, 40) if tool == "divide" else b + draw.randint(1, 900)
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
        before, after = answer.split("{r}")
        text = f"Q: {question}\nA: {before}".format(a=a, b=b)
        span = len(text), len(text) + len(str(result))
        rows.append(Row(f"{tool}-{number:04}", f"{text}{result}{after}", (CallPlace(tool, *span, f"{a}, {b}"),)))
    return rows


def show(title: str, seconds: float, plain: float | None) -> None:
    """Print a line of the table."""
    print(f"{title:34}{seconds:10.2f}{'' if plain is None else f'{plain / seconds:.1f}':>10}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=52, metavar="N", help="texts (default: 52)")
    parser.add_argument("--epochs", type=int, default=3, metavar="E", help="(default: 3)")
    parser.add_argument(
        "--train_file", type=Path, metavar="PATH", help="texts with calls of arithmetic tools (default: made up)"
    )
    parser.add_argument("--model", metavar="PATH", help="a model folder or hub name (default: the embedded model)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of Adam (default: 1e-3)")
    return parser


if __name__ == "__main__":
    main()
