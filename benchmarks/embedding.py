"""How fast texts become vectors, beside sentence-transformers' own loop over the same folder; one thread.

Run as ``python benchmarks/embedding.py --model FOLDER --texts FILE``: a sentence-transformers folder, or a decoder, of which
one is made beside it with ``--pooling``; a file of one text a line. sentence-transformers has to be installed for the comparison.
Both sides embed all texts in turn, ``--rounds`` times. Prints texts per second of the processor (``time.process_time``, which
other programs beside it change little) and of the clock, their ratios in each round, and how far vectors of both lie apart at
length 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Embed = Callable[[list[str]], Any]
# Texts that each side embeds before it is timed: what is compiled, tried out or read late is then there.
FIRST = 64


def main() -> int:
    """Measure and print; 1 where the vectors differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--texts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--count", type=int, default=2_000, metavar="N", help="texts (default 2000)")
    parser.add_argument("--pooling", default="lasttoken", help="of a decoder (default lasttoken)")
    parser.add_argument("--prompt", default="", help="stands before every text, of a decoder")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of both sides in turn (default 2)")
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="of sentence-transformers (default 32, its own)"
    )
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    lines = arguments.texts.read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line.strip()][: arguments.count]
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(arguments.model, arguments.pooling, arguments.prompt, Path(scratch))
        sides = {"harness": _ours(folder)}
        if importlib.util.find_spec("sentence_transformers") is None:
            print("sentence-transformers is not installed: nothing to compare with")
        else:
            sides["sentence-transformers"] = _theirs(folder, arguments.batch_size)
        return _report(sides, texts, arguments.rounds)


def _report(sides: dict[str, Embed], texts: list[str], rounds: int) -> int:
    for embed in sides.values():
        embed(texts[:FIRST])
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    vectors = {}
    for _ in range(rounds):
        for name, embed in sides.items():
            start = time.process_time(), time.perf_counter()
            vectors[name] = embed(texts)
            spent[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    for name, rows in spent.items():
        processor, clock = (min(row[n] for row in rows) for n in (0, 1))
        print(
            f"{name}: {len(texts) / processor:.2f} texts/s of the processor, {len(texts) / clock:.2f} by the clock",
            end="",
        )
        print(f" ({len(texts):,} texts, {processor:.1f} s and {clock:.1f} s at best)")
    if len(sides) == 1:
        return 0
    for number, word in enumerate(("processor", "clock")):
        pairs = zip(spent["sentence-transformers"], spent["harness"], strict=True)
        print(f"ratio by the {word}: {', '.join(f'{theirs[number] / ours[number]:.2f}' for theirs, ours in pairs)}")
    apart = float(np.abs(np.subtract(*map(_unit, vectors.values()))).max())
    print(f"vectors at length 1 differ by {apart:.1e} at most")
    return int(apart > 1e-5)


def _folder(model: Path, pooling: str, prompt: str, scratch: Path) -> Path:
    """Return a folder that both read: the model's own, or links to it with the files that say how it is pooled."""
    import json

    from transformers import AutoConfig

    if (model / "modules.json").is_file():
        return model
    for path in model.iterdir():
        (scratch / path.name).symlink_to(path.resolve())
    parts = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(parts.items())
    ]
    width = AutoConfig.from_pretrained(model).get_text_config().hidden_size
    (scratch / "1_Pooling").mkdir()
    said = {"embedding_dimension": width, "pooling_mode": pooling}
    (scratch / "1_Pooling" / "config.json").write_text(json.dumps(said), encoding="utf-8")
    prompts = {"prompts": {"query": prompt, "document": ""}}
    (scratch / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    (scratch / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return scratch


def _ours(folder: Path) -> Embed:
    from lm_eval.api.instance import Instance

    from harness.models.finding import resolve
    from harness.models.kinds import kind_of
    from harness.tasks.embedding import embed

    lm: Any = kind_of("encoder").load(resolve({"pretrained": str(folder), "dtype": "float32"}), "cpu", "auto")

    def run(texts: list[str]) -> Any:
        asked = [Instance("embed", {}, embed(text, role="query"), n, ("texts", n, 1)) for n, text in enumerate(texts)]
        return np.stack(lm.embed(asked))

    return run


def _theirs(folder: Path, batch_size: int) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    return lambda texts: model.encode_query(texts, batch_size=batch_size, show_progress_bar=False)


def _unit(vectors: Any) -> Any:
    rows = np.asarray(vectors, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


if __name__ == "__main__":
    sys.exit(main())
