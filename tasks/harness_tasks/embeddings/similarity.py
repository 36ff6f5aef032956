"""How alike two sentences are, against what people said: correlations over all pairs of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy

from harness.json_lines import Keys
from harness.metrics import similarities
from harness.tasks.embedding import EmbeddingTask, embed
from harness.tasks.own_docs import Doc
from harness_tasks.embeddings import data


class Similarity(EmbeddingTask):
    """A pair a document; ``cosine_spearman`` is the score, one correlation over all pairs."""

    metrics: ClassVar[dict[str, bool]] = {
        "cosine_spearman": True,
        "cosine_pearson": True,
        "euclidean_spearman": True,
        "manhattan_spearman": True,
    }
    aggregations: ClassVar[Mapping[str, str]] = {name: name.partition("_")[2] for name in metrics}

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the pairs of the file."""
        keys: Keys = {"text1": str, "text2": str, "score": (int, float)}
        said = data.instruction(metadata)
        return [
            {"text": row["text1"], "other": row["text2"], "gold": float(row["score"]), "instruction": said}
            for row in data.rows(metadata, "file", keys)
        ]

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return both sentences, each with the instruction."""
        return [embed(doc[name], doc["instruction"]) for name in ("text", "other")]

    def measure(
        self, docs: Sequence[Doc], vectors: Sequence[Any], corpus: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return for each pair what people said, and how alike its vectors are by each measure."""
        both = numpy.stack(vectors)
        found = similarities(both[:, 0], both[:, 1])
        return [
            {name: (doc["gold"], float(found[name.partition("_")[0]][number])) for name in self.metrics}
            for number, doc in enumerate(docs)
        ]
