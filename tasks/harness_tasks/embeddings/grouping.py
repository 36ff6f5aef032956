"""What vectors say of labels: by clusters that know none, and by a linear probe that knows a few."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy

from harness.errors import HarnessError
from harness.json_lines import Keys
from harness.metrics.packages import needed
from harness.names import printable, suggestion
from harness.tasks.embedding import EmbeddingTask, embed
from harness.tasks.own_docs import Doc, whole_number
from harness_tasks.embeddings import data

STARTS = 10
# mteb's own clusters and draws, for scores beside its own: one start on texts in batches, on vectors as the model gives them;
# few of each label in orders of which each is the one before, shuffled again.
MTEB, MTEB_BATCH = "mteb", 500


class Clustering(EmbeddingTask):
    """A text a document; ``v_measure`` is the score: of k-means with as many clusters as there are labels, on unit vectors.

    With ``compat: mteb`` clusters are those of mteb's ``AbsTaskClusteringLegacy``, whose ``seed`` is 42.
    """

    metrics: ClassVar[dict[str, bool]] = {"v_measure": True}
    aggregations: ClassVar[Mapping[str, str]] = {"v_measure": "v_measure"}

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the texts of the file."""
        self._seed = whole_number("seed", metadata.get("seed", 0), at_least=0)
        self._as_mteb = _as_mteb(metadata)
        said = data.instruction(metadata)
        return [
            {"text": row["text"], "label": str(row["label"]), "instruction": said}
            for row in data.rows(metadata, "file", {"text": str, "label": (str, int)})
        ]

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the text with the instruction."""
        return [embed(doc["text"], doc["instruction"])]

    def measure(
        self, docs: Sequence[Doc], vectors: Sequence[Any], corpus: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return the label of each text and its cluster: the best of ten starts."""
        labels = [doc["label"] for doc in docs]
        library = needed("sklearn.cluster", by="clustering")
        settings = {"n_clusters": len(set(labels)), "random_state": self._seed}
        with warnings.catch_warnings():  # of fewer distinct vectors than labels, which the score says
            warnings.simplefilter("ignore")
            if self._as_mteb:
                fit = library.MiniBatchKMeans(batch_size=MTEB_BATCH, n_init="auto", **settings)
                clusters = fit.fit_predict(numpy.concatenate(vectors))
            else:
                clusters = library.KMeans(n_init=STARTS, **settings).fit_predict(_unit(vectors))
        return [{"v_measure": (label, int(cluster))} for label, cluster in zip(labels, clusters, strict=True)]


class Probe(EmbeddingTask):
    """A test text a document; ``accuracy`` is the score: of logistic regressions on eight texts a label, over ten draws.

    What a document has is the share of the draws in which it is right. Draw k takes the first eight of each label in the order
    that ``numpy.random.RandomState(seed + k)`` shuffles the training rows into; with ``compat: mteb`` in the order of draw
    k - 1, shuffled again by ``RandomState(seed)``.
    """

    metrics: ClassVar[dict[str, bool]] = {"accuracy": True}

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the texts of the test file, and read those of the training file."""
        self._seed = whole_number("seed", metadata.get("seed", 42), at_least=0)
        self._draws = whole_number("draws", metadata.get("draws", 10), at_least=1)
        self._shots = whole_number("shots", metadata.get("shots", 8), at_least=1)
        self._as_mteb = _as_mteb(metadata)
        keys: Keys = {"text": str, "label": (str, int)}
        said = data.instruction(metadata)
        self._train = [(row["text"], str(row["label"])) for row in data.rows(metadata, "train_file", keys)]
        data.check_filled("the training file", {number: text for number, (text, _) in enumerate(self._train)})
        return [
            {"text": row["text"], "label": str(row["label"]), "instruction": said}
            for row in data.rows(metadata, "file", keys)
        ]

    def corpus(self, metadata: Mapping[str, Any]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        """Return the training texts, named by number and label."""
        said = data.instruction(metadata)
        return {f"{number} {label}": embed(text, said) for number, (text, label) in enumerate(self._train)}

    @property
    def notes(self) -> list[str]:
        """What the probe was made of, for the record."""
        return [f"{self._draws} probes on {self._shots} texts a label, of {len(self._train):,} training texts"]

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the text with the instruction."""
        return [embed(doc["text"], doc["instruction"])]

    def measure(
        self, docs: Sequence[Doc], vectors: Sequence[Any], corpus: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return the share of draws in which each text is given its label."""
        library = needed("sklearn.linear_model", by="a linear probe")
        train = numpy.stack(list(corpus.values()))
        labels = [name.partition(" ")[2] for name in corpus]
        asked, gold = numpy.concatenate(vectors), numpy.array([doc["label"] for doc in docs])
        hits = numpy.zeros(len(docs))
        for order in orders(len(labels), self._draws, seed=self._seed, nested=self._as_mteb):
            chosen = few_of_each(labels, self._shots, order)
            probe = library.LogisticRegression(max_iter=100)
            with warnings.catch_warnings():  # of a fit that is not done after 100 steps: that is how it is compared
                warnings.simplefilter("ignore")
                probe.fit(train[chosen], [labels[place] for place in chosen])
            hits += probe.predict(asked) == gold
        return [{"accuracy": float(share)} for share in hits / self._draws]


def orders(length: int, draws: int, *, seed: int, nested: bool = False) -> Iterator[list[int]]:
    """Yield the order of ``length`` rows for each draw: shuffled with ``seed`` + draw, or, nested, the last one with ``seed``."""
    order = numpy.arange(length)
    for draw in range(draws):
        order = order if nested else numpy.arange(length)
        numpy.random.RandomState(seed if nested else seed + draw).shuffle(order)
        yield order.tolist()


def few_of_each(labels: Sequence[str], count: int, order: Iterable[int]) -> list[int]:
    """Return the places of the first ``count`` of each label, in the order given."""
    seen: dict[str, int] = {}
    chosen = []
    for place in order:
        if seen.setdefault(labels[place], 0) < count:
            seen[labels[place]] += 1
            chosen.append(place)
    return chosen


def _as_mteb(metadata: Mapping[str, Any]) -> bool:
    compat = metadata.get("compat")
    if compat not in (None, MTEB):
        raise HarnessError(f"compat is '{printable(str(compat))}'; {suggestion(str(compat), [MTEB])}")
    return compat == MTEB


def _unit(vectors: Sequence[Any]) -> Any:
    wide = numpy.concatenate(vectors).astype(numpy.float64)
    return wide / numpy.linalg.norm(wide, axis=1, keepdims=True)
