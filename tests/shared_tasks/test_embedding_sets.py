"""Tasks on embeddings: what they ask, scores worked out by hand, brute force, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy
import pytest

from harness import HarnessError
from harness.run import Run, evaluate
from harness_tasks.embeddings.grouping import Clustering, Probe, few_of_each, orders
from harness_tasks.embeddings.ranking import Reranking, Retrieval
from harness_tasks.embeddings.similarity import Similarity

FILES: dict[str, list[dict[str, Any]]] = {
    "sts_b_test": [
        {"text1": "a clock", "text2": "the clock", "score": 5}, {"text1": "a bank", "text2": "sweets", "score": 0.5},
        {"text1": "What is time?", "text2": "a ledger", "score": 2}, {"text1": "noon", "text2": "war", "score": 1},
    ],
    "sick_test": [
        {"text1": "a clock", "text2": "two clocks", "score": 4.5}, {"text1": "a bank", "text2": "a voice", "score": 1},
        {"text1": "the hour", "text2": "noon", "score": 3},
    ],
    "trecqa_rerank": [
        {"query_id": 1, "query": "What bowed?", "candidates": ["the cuckoo", "a bank", "sweets"], "labels": [0, 1, 1]},
        {"query_id": 2, "query": "Who asked?", "candidates": ["children", "no one"], "labels": [1, 0]},
    ],
    "cranfield_queries": [
        {"query_id": "1", "text": "ticking clocks", "relevant": {"2": 1, "10": 1, "9": 0}},
        {"query_id": "2", "text": "bread", "relevant": {"1": 1}},
    ],
    "cranfield_corpus": [
        {"document_id": "1", "title": "bakery", "text": "between a bakery and a bank"},
        {"document_id": "2", "title": "clocks", "text": "forty clocks ticked"},
        {"document_id": "9", "title": "", "text": ""}, {"document_id": "10", "title": "hour", "text": "he wrote it"},
    ],
    "stackoverflow_titles": [{"text": f"{word} {n}", "label": m} for m, word in enumerate(("clock", "bank")) for n in "abc"],
    "banking77_train": [{"text": f"{word} {n}", "label": word} for word in ("clock", "bank") for n in "abcdefghij"],
    "banking77_test": [{"text": f"{word} {n}", "label": word} for word in ("clock", "bank") for n in "xyz"],
}  # fmt: skip
OF_TASKS = {
    "sts_b": "cosine_spearman", "sick_r": "cosine_spearman", "trecqa_rerank": "map", "cranfield_retrieval": "ndcg_at_10",
    "stackoverflow_clustering": "v_measure", "banking77_probe": "accuracy",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name, rows in FILES.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def measured(kind, folder, vector_of, **metadata):
    """Return the task and what ``measure`` gives each document, with a vector for each text."""
    metadata = {"version": 1, "data_folder": str(folder), **metadata}
    task = kind({"task": "t", "metadata": metadata})
    docs = list(task.test_docs())
    vectors = [numpy.array([vector_of(text) for text, _ in task.arguments(doc)], numpy.float32) for doc in docs]
    corpus = {name: numpy.array(vector_of(text), numpy.float32) for name, (text, _) in task.corpus(metadata).items()}
    return task, task.measure(docs, vectors, corpus)


def test_all_six_tasks_end_in_records_with_a_tiny_encoder(folder, tmp_path, tiny_encoder, monkeypatch) -> None:
    """The data are found by the environment variable, vectors stay out of the samples."""
    monkeypatch.setenv("HARNESS_EMBEDDING_DATA", str(folder))
    run = Run(
        tasks=tuple(OF_TASKS),
        model="encoder",
        model_args={"pretrained": str(tiny_encoder)},
        device="cpu",
        output_path=tmp_path / "results",
    )
    records = evaluate(run)
    assert set(OF_TASKS.items()) <= {(record.task.name, record.metric.name) for record in records}
    assert all(math.isfinite(record.value) for record in records)
    for path in (tmp_path / "results").rglob("samples*.jsonl"):
        assert path.stat().st_size < 20_000
        assert "vector of" in path.read_text(encoding="utf-8")


def test_pairs_are_asked_with_their_instruction_and_measured_by_their_angle(folder) -> None:
    angles = {
        "a clock": 0.0,
        "the clock": 0.1,
        "a bank": 0.0,
        "sweets": 2.0,
        "What is time?": 1,
        "a ledger": 2,
        "noon": 0,
    }
    task, found = measured(
        Similarity,
        folder,
        lambda text: (3 * math.cos(angles.get(text, 1.5)), 3 * math.sin(angles.get(text, 1.5))),
        file="sts_b_test.jsonl",
        instruction="Compare",
    )
    first = next(iter(task.test_docs()))
    assert task.arguments(first)[1] == ("the clock", {"instruction": "Compare", "role": None})
    values = [one["cosine_spearman"] for one in found]
    assert [gold for gold, _ in values] == [5, 0.5, 2, 1]
    assert [cosine for _, cosine in values] == pytest.approx([math.cos(x) for x in (0.1, 2, 1, 1.5)], abs=1e-6)
    assert found[0]["euclidean_spearman"][1] == pytest.approx(-6 * math.sin(0.05), abs=1e-6)
    assert task.aggregation()["cosine_spearman"](values) == 1.0


def test_candidates_are_ranked_by_the_cosine_alone(folder) -> None:
    nearness = {"the cuckoo": 0.9, "a bank": 0.5, "sweets": 0.1, "children": 0.2, "no one": 0.3}
    task, found = measured(
        Reranking,
        folder,
        lambda text: (5 * nearness[text], 5 * math.sqrt(1 - nearness[text] ** 2)) if text in nearness else (1.0, 0.0),
        file="trecqa_rerank.jsonl",
        instruction="Find",
    )
    assert [request[1]["role"] for request in task.arguments(next(iter(task.test_docs())))] == [
        "query",
        *["document"] * 3,
    ]
    assert [one["map"] for one in found] == pytest.approx([(1 / 2 + 2 / 3) / 2, 1 / 2])
    assert [one["mrr_at_10"] for one in found] == pytest.approx([1 / 2, 1 / 2])


def test_a_corpus_is_searched_whole(folder) -> None:
    axes = {
        "bakery": (0, 1, 0),
        "clocks": (1, 0, 0),
        "hour": (0.5, 0, 1),
        "ticking": (1, 0, 0.1),
        "bread": (0.4, 0.5, 0),
    }
    task, found = measured(
        Retrieval,
        folder,
        lambda text: axes.get(text.partition(" ")[0], (0.1, 0.1, 0.1)),
        file="cranfield_queries.jsonl",
        corpus_file="cranfield_corpus.jsonl",
    )
    assert task.corpus({"data_folder": str(folder), "corpus_file": "cranfield_corpus.jsonl"})["1"] == (
        "bakery between a bakery and a bank", {"instruction": None, "role": "document"},
    )  # fmt: skip
    # In the place of the empty document stands one that is near to all: 2, 9, 10, 1 for the first query.
    assert found[0]["ndcg_at_10"] == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))
    assert found[1]["map"] in (1.0, 0.5)


def test_clusters_of_two_kinds_are_the_labels(folder) -> None:
    _, found = measured(
        Clustering,
        folder,
        lambda text: (9.0, 1 + 0.01 * len(text)) if "clock" in text else (1.0, 0.01 * ord(text[-1])),
        file="stackoverflow_titles.jsonl",
    )
    labels = [one["v_measure"] for one in found]
    assert [label for label, _ in labels] == list("000111")
    assert len(set(labels)) == 2


def test_a_probe_learns_from_few_of_each_label(folder) -> None:
    task, found = measured(
        Probe,
        folder,
        lambda text: (4.0, 0.01 * ord(text[-1])) if "clock" in text else (-4.0, 0.02 * ord(text[-1])),
        file="banking77_test.jsonl",
        train_file="banking77_train.jsonl",
    )
    assert [one["accuracy"] for one in found] == [1.0] * 6
    assert "10 probes on 8 texts a label" in task.notes[0]


def test_few_of_each_label_are_the_first_in_a_drawn_order() -> None:
    order = numpy.arange(6)
    numpy.random.RandomState(43).shuffle(order)
    labels = list("aabbbb")
    *_, last = orders(6, 2, seed=42)
    chosen = few_of_each(labels, 2, last)
    assert [place for place in order if labels[place] == "b"][:2] == [place for place in chosen if labels[place] == "b"]
    assert sorted(labels[place] for place in chosen) == list("aabb")


def test_draws_and_clusters_may_be_those_of_mteb(folder) -> None:
    """Each draw shuffles the order of the last one, by one seed; vectors are clustered as they are."""
    rows = list(range(6))
    for found in orders(6, 3, seed=42, nested=True):
        numpy.random.RandomState(42).shuffle(rows)
        assert found == rows
    near = {text: 1.0 + n for n, text in enumerate(f"{word} {n}" for word in ("clock", "bank") for n in "abc")}
    for compat, count in ((None, 1), ("mteb", 2)):  # at length 1 all are one
        _, found = measured(
            Clustering, folder, lambda text: (near[text], 0.0), file="stackoverflow_titles.jsonl", compat=compat
        )
        assert len({one["v_measure"][1] for one in found}) == count
    with pytest.raises(HarnessError, match="compat is 'sklearn'"):
        measured(Clustering, folder, lambda _: (1.0,), file="stackoverflow_titles.jsonl", compat="sklearn")


def test_data_that_are_not_there_or_not_right_are_told(folder, monkeypatch) -> None:
    monkeypatch.delenv("HARNESS_EMBEDDING_DATA", raising=False)
    with pytest.raises(HarnessError, match="HARNESS_EMBEDDING_DATA"):
        Similarity({"task": "t", "metadata": {"version": 1, "file": "sts_b_test.jsonl"}})
    (folder / "trecqa_rerank.jsonl").write_text(
        json.dumps({"query_id": 1, "query": "q", "candidates": ["a"], "labels": []}) + "\n", encoding="utf-8"
    )
    with pytest.raises(HarnessError, match="query 1 has 1 candidates and 0 labels"):
        measured(Reranking, folder, lambda _: (1.0,), file="trecqa_rerank.jsonl")
    (folder / "sts_b_test.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(HarnessError, match="sts_b_test"):
        measured(Similarity, folder, lambda _: (1.0,), file="sts_b_test.jsonl")
