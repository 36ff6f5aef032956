"""Which documents a query should find: among candidates of its own, or in a whole corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy

from harness.errors import HarnessError
from harness.json_lines import Keys
from harness.metrics.rankings import of_query, ranked
from harness.metrics.search import best
from harness.tasks.embedding import EmbeddingTask, embed
from harness.tasks.own_docs import Doc
from harness_tasks.embeddings import data

# Documents that are ranked for each query.
MOST_RANKED = 1_000


class Reranking(EmbeddingTask):
    """A query with its candidates a document; ``map`` is the score: the mean over queries of the average precision."""

    metrics: ClassVar[dict[str, bool]] = {"map": True, "mrr_at_10": True}

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the queries of the file."""
        keys: Keys = {"query_id": (str, int), "query": str, "candidates": list, "labels": list}
        docs: list[Doc] = []
        for row in data.rows(metadata, "file", keys):
            if len(row["candidates"]) != len(row["labels"]):
                raise HarnessError(
                    f"query {row['query_id']} has {len(row['candidates'])} candidates and {len(row['labels'])} labels"
                )
            doc = {"text": row["query"], "candidates": row["candidates"], "labels": row["labels"]}
            docs.append({**doc, "query_id": str(row["query_id"]), "instruction": data.instruction(metadata)})
        return docs

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the query with the instruction, then its candidates."""
        candidates = [embed(text, None, "document") for text in doc["candidates"]]
        return [embed(doc["text"], doc["instruction"], "query"), *candidates]

    def measure(
        self, docs: Sequence[Doc], vectors: Sequence[Any], corpus: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return average precision and reciprocal rank of each query over all of its candidates, ranked by the cosine."""
        return [self._of(doc, _unit(own)) for doc, own in zip(docs, vectors, strict=True)]

    def _of(self, doc: Doc, vectors: Any) -> Mapping[str, float]:
        cosines = vectors[1:] @ vectors[0]
        names = [f"{number:06d}" for number in range(len(cosines))]
        order = ranked(dict(zip(names, cosines.tolist(), strict=True)), query=doc["query_id"])
        found = of_query(dict(zip(names, doc["labels"], strict=True)), order)
        return {"map": found["average_precision"], "mrr_at_10": found["reciprocal_rank_at_10"]}


class Retrieval(EmbeddingTask):
    """A query a document; ``ndcg_at_10`` is the score: by trec_eval's rules, the mean over queries."""

    metrics: ClassVar[dict[str, bool]] = {
        "ndcg_at_10": True,
        "map": True,
        "mrr_at_10": True,
        "recall_at_10": True,
        "recall_at_100": True,
    }

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the queries of the file."""
        found = data.rows(metadata, "file", {"query_id": (str, int), "text": str, "relevant": dict})
        said = data.instruction(metadata)
        return [
            {"text": row["text"], "query_id": str(row["query_id"]), "relevant": row["relevant"], "instruction": said}
            for row in found
        ]

    def corpus(self, metadata: Mapping[str, Any]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        """Return the documents, each its title and its text."""
        keys: Keys = {"document_id": (str, int), "title": str, "text": str}
        found = data.rows(metadata, "corpus_file", keys)
        return {
            str(row["document_id"]): embed(f"{row['title']} {row['text']}".strip(), None, "document") for row in found
        }

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the query with the instruction."""
        return [embed(doc["text"], doc["instruction"], "query")]

    def measure(
        self, docs: Sequence[Doc], vectors: Sequence[Any], corpus: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return the metrics of each query, over the best thousand of the corpus by the cosine."""
        names = list(corpus)
        queries = _unit(numpy.concatenate(vectors))
        orders = best(queries, _unit(numpy.stack([corpus[name] for name in names])), names, most=MOST_RANKED)
        called = {"map": "average_precision", "mrr_at_10": "reciprocal_rank_at_10"}
        return [
            {name: found[called.get(name, name)] for name in self.metrics}
            for found in (of_query(doc["relevant"], order) for doc, order in zip(docs, orders, strict=True))
        ]


def _unit(vectors: Any) -> Any:
    wide = numpy.asarray(vectors, dtype=numpy.float64)
    lengths = numpy.linalg.norm(wide, axis=-1, keepdims=True)
    return wide / numpy.where(lengths > 0, lengths, 1)
