"""A base class for tasks whose metrics need all vectors at once: similarity, retrieval, reranking, clusters, probes."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy
from lm_eval.api.instance import Instance

from harness.errors import HarnessError, NoScore
from harness.models.embedding import CORPUS
from harness.names import printable
from harness.tasks.own_docs import Doc, OwnDocsTask

# Vectors whose numbers vary less than this, as a share of their squares, are one vector.
LEAST_VARIANCE = 1e-10
Vectors = Any
"""(N, D), float32."""


def embed(text: str, instruction: str | None = None, role: str | None = None) -> tuple[str, dict[str, str | None]]:
    """Return the arguments of an ``embed`` request.

    Args:
        instruction: the task in words, for models that take one; on both sides where sides are alike.
        role: ``query`` or ``document`` in a search; None where sides are alike.
    """
    return text, {"instruction": instruction, "role": role}


class EmbeddingTask(OwnDocsTask):
    """A task of ``embed`` requests whose metrics are made of the vectors of all documents at once.

    A subclass gives documents (``make_docs``), the requests of each (``arguments``, made with ``embed``), a ``corpus`` where
    there is one, and ``measure``. A metric that is no mean is named in ``aggregations``; what ``measure`` gives for it
    are the two things of each document of which the aggregation makes the score, (gold, cosine) for ``spearman``,
    (gold, cluster) for ``v_measure``. No vector enters a sample file.

    A corpus is embedded once and whole, whatever ``--limit`` says. Its texts that hold nothing but white space are left out:
    they are found by no query, and noted.
    """

    request_types: ClassVar[tuple[str, ...]] = ("embed",)

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Make documents and corpus."""
        super().__init__(config)
        whole = dict(self.corpus(dict(config["metadata"])))
        self._corpus = {name: one for name, one in whole.items() if one[0].strip()}
        self._empty = len(whole) - len(self._corpus)
        self._measured: dict[int, Mapping[str, Any]] = {}
        if whole:  # what is searched decides a score: it is known by the documents' digest
            text = json.dumps(sorted(whole.items()), ensure_ascii=False)
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            self._docs = [{**doc, "corpus": digest} for doc in self._docs]

    def corpus(self, metadata: Mapping[str, Any]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        """Return the arguments of the request of each text of the corpus, by its name; empty where there is none."""
        return {}

    @abstractmethod
    def measure(
        self, docs: Sequence[Doc], vectors: Sequence[Vectors], corpus: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return what every metric takes of each document.

        Args:
            docs: those that were asked, in order.
            vectors: of each document, (number of its requests, D), in the order of ``arguments``.
            corpus: the vector (D,) of each text of the corpus, by name.
        """

    def score(self, doc: Doc, answers: list[Any]) -> Mapping[str, Any]:
        """Return what ``measure`` gave for ``doc``."""
        return self._measured[id(doc)]

    @property
    def notes(self) -> list[str]:
        """Sentences on what the scores are of, for the record."""
        if not self._corpus:
            return []
        said = [f"a corpus of {len(self._corpus):,} texts was searched, whole whatever --limit says"]
        empty = f"texts of the corpus that are empty, and are found by no query: {self._empty:,}"
        return [*said, *([empty] if self._empty else [])]

    def build_all_requests(self, *, world_size: int = 1, **settings: Any) -> None:
        """Make the requests of the documents, then those of the corpus.

        Raises:
            HarnessError: several processes share the documents.
        """
        if world_size > 1:
            name = printable(self._config.task)
            raise HarnessError(f"task '{name}' measures all documents at once; run it in one process")
        super().build_all_requests(world_size=world_size, **settings)
        assert self._instances is not None
        of_corpus = [
            Instance(
                request_type=self.request_types[0],
                doc={"corpus": name},
                arguments=arguments,
                idx=place,
                metadata=(self._config.task, CORPUS, 1),
            )
            for place, (name, arguments) in enumerate(self._corpus.items())
        ]
        self._instances = [*self._instances, *of_corpus]

    def apply_filters(self) -> None:
        """Measure all documents, and hand the answers on as they are.

        Raises:
            NoScore: vectors are no directions, or all of them are one.
        """
        super().apply_filters()
        of_docs: dict[int, list[Instance]] = {}
        for instance in sorted(self.instances, key=lambda instance: instance.idx):
            of_docs.setdefault(instance.doc_id, []).append(instance)
        corpus = of_docs.pop(CORPUS, [])
        groups = [of_docs[number] for number in sorted(of_docs)]
        self._check([instance for group in [*groups, corpus] for instance in group])
        docs = [group[0].doc for group in groups]
        vectors = [numpy.stack([instance.resps[0] for instance in group]) for group in groups]
        names = {str(one.doc["corpus"]): one.resps[0] for one in corpus}
        found = self.measure(docs, vectors, names)
        self._measured = {id(doc): metrics for doc, metrics in zip(docs, found, strict=True)}

    def _check(self, instances: Sequence[Instance]) -> None:
        """Raise ``NoScore`` where vectors say nothing: one that is no direction, or all of them one."""
        task, first = printable(self._config.task), instances[0].resps[0]
        for instance in instances:
            vector = numpy.asarray(instance.resps[0])
            whose = f"task '{task}' has no score: the vector of '{printable(str(instance.args[0])[:60])}'"
            if vector.ndim != 1 or vector.shape != numpy.shape(first):
                raise NoScore(f"{whose} has shape {vector.shape}, where that of the first is {numpy.shape(first)}")
            if not numpy.isfinite(vector).all():
                raise NoScore(f"{whose} holds NaN or infinite numbers")
            if not vector.any() and instance.doc_id != CORPUS:
                raise NoScore(f"{whose} is all zeros, and as near to every other as to none")
        variance = _variance([instance.resps[0] for instance in instances])
        if len({instance.args[0] for instance in instances}) > 1 and variance <= LEAST_VARIANCE:
            raise NoScore(
                f"task '{task}' has no score: all {len(instances):,} vectors are one (their variance is {variance:.1e} of their "
                "square); the model has collapsed"
            )


def _variance(vectors: Sequence[Any]) -> float:
    """Return the variance of vectors as a share of their mean square, 0 when all are one."""
    together = numpy.stack(vectors).astype(numpy.float64)
    square = float((together**2).mean())
    return float(together.var(axis=0).mean()) / square if square else 0.0
