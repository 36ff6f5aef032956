"""What the tests of answers with tools share: requests, answers to compare, and rows of training text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from harness.models.finding import resolve
from harness.models.loading import load_lm

NEVER, ALWAYS = -1e9, 1e4


MORE = {"until": ["\n\n"], "max_gen_toks": 16, "do_sample": False}


def request(context: str, doc: Any = None, number: int = 0, **settings: Any) -> Instance:
    return Instance("generate_until", doc or {}, (context, MORE | settings), 0, metadata=("made_up", number, 1))


def questions(count: int, **settings: Any) -> list[Instance]:
    contexts = [f"Answer.\n\nQuestion: what is {n} and {n * 3}?\nAnswer:" for n in range(count)]
    return [request(context, None, n, **settings) for n, context in enumerate(contexts)]


def answers(lm: Any, requests: list[Instance]) -> list[Any]:
    found: list[Any] = lm.generate_until(requests, disable_tqdm=True)
    return found


def told(found: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return texts and calls to compare, without margins, which other batches round otherwise."""
    return [
        (str(one), [{name: value for name, value in call.items() if name != "margin"} for call in one.trace])
        for one in found
    ]


def write_lines(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def training_row(number: int, before: str, result: str, after: str, tool: str = "add") -> dict[str, Any]:
    """Return a row of training text: a call of ``tool`` between two texts."""
    call = {"tool": tool, "args": "1, 2", "result": result, "start": len(before), "end": len(before) + len(result)}
    return {"id": f"row-{number}", "text": before + result + after, "calls": [call]}


def load(folder: Path, **settings: Any) -> Any:
    """Return the LM of a saved model."""
    quantization = settings.pop("quantization", "none")
    args = {"pretrained": str(folder), **settings}
    return load_lm(resolve(args, quantization=quantization), device="cpu", batch_size="auto")
