"""How fast texts become vectors, beside sentence-transformers' own loop over the same folder; one thread.

Run as ``python benchmarks/embedding.py --model FOLDER --texts FILE``: a sentence-transformers folder, or a decoder, of which
one is made beside it with ``--pooling``; a file of one text a line. sentence-transformers has to be installed for the comparison.
Prints texts per second (best of the rounds), their ratio, and how far the vectors of both lie apart at length 1.
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


def main() -> int:
    """Measure and print; 1 where the vectors differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--texts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--count", type=int, default=2_000, metavar="N", help="texts (default 2000)")
    parser.add_argument("--pooling", default="lasttoken", help="of a decoder (default lasttoken)")
    parser.add_argument("--prompt", default="", help="stands before every text, of a decoder")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of each, the best counts (default 2)")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    texts = [line for line in arguments.texts.read_text(encoding="utf-8").splitlines() if line.strip()][
        : arguments.count
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(arguments.model, arguments.pooling, arguments.prompt, Path(scratch))
        ours = _ours(folder)
        seconds, vectors = _best(ours, texts, arguments.rounds)
        print(f"harness: {len(texts) / seconds:.1f} texts/s ({len(texts):,} texts, {seconds:.1f} s)", flush=True)
        if importlib.util.find_spec("sentence_transformers") is None:
            print("sentence-transformers is not installed: nothing to compare with")
            return 0
        theirs = _theirs(folder)
        slower, expected = _best(theirs, texts, arguments.rounds)
    apart = float(np.abs(_unit(vectors) - _unit(expected)).max())
    print(f"sentence-transformers: {len(texts) / slower:.1f} texts/s ({slower:.1f} s)")
    print(f"ratio {slower / seconds:.2f}, vectors at length 1 differ by {apart:.1e} at most")
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


def _ours(folder: Path) -> Callable[[list[str]], Any]:
    from lm_eval.api.instance import Instance

    from harness.models.finding import resolve
    from harness.models.kinds import kind_of
    from harness.tasks.embedding import embed

    lm: Any = kind_of("encoder").load(resolve({"pretrained": str(folder), "dtype": "float32"}), "cpu", "auto")

    def run(texts: list[str]) -> Any:
        asked = [Instance("embed", {}, embed(text, role="query"), n, ("texts", n, 1)) for n, text in enumerate(texts)]
        return np.stack(lm.embed(asked))

    return run


def _theirs(folder: Path) -> Callable[[list[str]], Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    return lambda texts: model.encode_query(texts, show_progress_bar=False)


def _best(embed: Callable[[list[str]], Any], texts: list[str], rounds: int) -> tuple[float, Any]:
    embed(texts[:64])
    best, found = float("inf"), None
    for _ in range(rounds):
        start = time.perf_counter()
        found = embed(texts)
        best = min(best, time.perf_counter() - start)
    return best, found


def _unit(vectors: Any) -> Any:
    rows = np.asarray(vectors, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


if __name__ == "__main__":
    sys.exit(main())
