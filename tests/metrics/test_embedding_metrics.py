"""Metrics over whole sets: golden values, ties, permutations, and what is refused."""

from __future__ import annotations

import math
import random

import numpy
import pytest
from embedding_golden import rows

from harness import HarnessError
from harness.metrics import pearson, ranking, similarities, spearman, v_measure
from harness.metrics.packages import needed
from harness.metrics.rankings import of_query, ranked
from harness.metrics.search import best


@pytest.mark.parametrize("row", rows("golden_spearman"), ids=lambda row: row["case"])
def test_correlations_have_the_golden_values(row) -> None:
    """Property 15: Spearman to 1e-9, ties included."""
    assert spearman(row["x"], row["y"]) == pytest.approx(row["spearman"], abs=1e-9)
    assert pearson(row["x"], row["y"]) == pytest.approx(row["pearson"], abs=1e-9)


@pytest.mark.parametrize("row", rows("golden_sts"), ids=lambda row: row["case"])
def test_similarities_have_the_golden_values(row) -> None:
    """Property 15: cosines, and Spearman by each measure."""
    found = similarities(row["embeddings1"], row["embeddings2"])
    assert found["cosine"] == pytest.approx(row["cosine"], abs=1e-9)
    for name in found:
        assert spearman(found[name], row["gold"]) == pytest.approx(row[f"{name}_spearman"], abs=1e-9)
    assert pearson(found["cosine"], row["gold"]) == pytest.approx(row["cosine_pearson"], abs=1e-9)


@pytest.mark.parametrize("row", rows("golden_ranking"), ids=lambda row: row.get("note", row["case"]))
def test_rankings_have_the_golden_values(row) -> None:
    """Property 15: nDCG, MAP, MRR, recall to 1e-6, with ties, single precision, text ids, negative and missing judgements."""
    found = ranking(row["judgements"], row["scores"])
    assert set(found["per_query"]) == set(row["per_query"])
    for query, golden in row["per_query"].items():
        assert {name: found["per_query"][query][name] for name in golden} == pytest.approx(golden, abs=1e-6)
    golden = row["mean_over_answered"]
    assert {name: found["mean_over_answered"][name] for name in golden} == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("row", rows("golden_clustering"), ids=lambda row: row["case"])
def test_clusters_have_the_golden_values(row) -> None:
    """Property 15: V-measure to 1e-9."""
    found = v_measure(row["gold"], row["clusters"])
    assert found == pytest.approx({name: row[name] for name in found}, abs=1e-9)


def test_pairs_of_one_direction_are_all_alike() -> None:
    """Their cosine is 1 exactly, so that no rounding ranks them."""
    rows = numpy.random.default_rng(0).normal(size=(50, 37)).astype(numpy.float32)
    assert (similarities(rows, rows)["cosine"] == 1).all()
    assert similarities(rows, 4 * rows)["cosine"] == pytest.approx(1, abs=1e-15)
    assert similarities(rows, -rows)["cosine"] == pytest.approx(-1, abs=1e-15)


def test_monotone_changes_of_scores_and_order_of_pairs_change_nothing() -> None:
    """Properties 15 and 16: ranks alone count, in whatever order pairs come; the reverse is -1."""
    draws = numpy.random.default_rng(0)
    x, y = draws.normal(size=40).round(1), draws.normal(size=40).round(1)
    order = draws.permutation(40)
    assert spearman(numpy.exp(x), y) == pytest.approx(spearman(x, y), abs=1e-12)
    assert spearman(x[order], y[order]) == pytest.approx(spearman(x, y), abs=1e-12)
    assert spearman(numpy.arange(9), -(numpy.arange(9) ** 3)) == -1


def test_the_order_of_documents_and_queries_changes_no_ranking() -> None:
    """Property 16: ties included."""
    draws = random.Random(0)
    judgements = {f"q{q}": {f"d{d}": draws.randrange(-1, 3) for d in range(12)} for q in range(5)}
    scores = {query: {f"d{d}": round(draws.random(), 1) for d in range(14)} for query in judgements}
    found = ranking(judgements, scores)
    for _ in range(5):
        mixed = {q: dict(draws.sample(sorted(scores[q].items()), 14)) for q in draws.sample(sorted(scores), 5)}
        again = ranking(judgements, mixed)
        assert again["per_query"] == found["per_query"]
        assert again["mean_over_answered"] == found["mean_over_answered"]


def test_the_order_of_texts_and_the_names_of_clusters_change_no_v_measure() -> None:
    """Property 16."""
    draws = numpy.random.default_rng(0)
    gold, clusters, order = draws.integers(4, size=60), draws.integers(5, size=60), draws.permutation(60)
    expected = v_measure(gold, clusters)
    assert v_measure(gold[order], [f"c{9 - c}" for c in clusters[order]]) == pytest.approx(expected, abs=1e-12)


def test_judged_queries_without_scores_are_named() -> None:
    found = ranking({"q": {"a": 1}, "r": {"b": 1}}, {"q": {"a": 0.9}})
    assert found["unanswered"] == ["r"]
    assert found["mean_over_answered"]["ndcg_at_10"] == 1


@pytest.mark.parametrize(
    ("scores", "said"),
    [({"q": {"a": math.nan}}, "score nan"), ({"q": {"a": 1e39}}, "single precision"), ({"x": {"a": 1.0}}, "no query")],
)
def test_what_cannot_be_ranked_is_refused(scores, said) -> None:
    with pytest.raises(HarnessError, match=said):
        ranking({"q": {"a": 1}}, scores)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ([0.5, 0.5, 0.5], [1, 2, 3], "variance 0"), ([1, 2], [1, math.nan], "number 1 is nan"), ([1], [1], "two pairs"),
        ([1, 2], [1, 2, 3], "2 and 3"),
    ],
)  # fmt: skip
def test_correlations_without_a_value_are_said_in_words(x, y, said) -> None:
    for correlation in (spearman, pearson):
        with pytest.raises(HarnessError, match=said):
            correlation(x, y)


def test_embeddings_without_a_direction_are_refused() -> None:
    for broken, said in (([[0.0, 0.0]], "embedding 0 is zero"), ([[math.inf, 1.0]], "not finite")):
        with pytest.raises(HarnessError, match=said):
            similarities(broken, [[1.0, 0.0]])
    with pytest.raises(HarnessError, match="no pairs"):
        similarities([[1.0, 0.0]], [[1.0, 0.0, 0.0]])


def test_lists_of_unequal_length_are_no_clusters() -> None:
    with pytest.raises(HarnessError, match="2 and 1"):
        v_measure([0, 1], [0])


def test_the_search_is_brute_force_in_any_block() -> None:
    """Property 23, ties included: the higher name as text first."""
    draws = numpy.random.default_rng(0)
    documents = draws.normal(size=(60, 4)).round(1)
    documents[30:] = documents[:30]
    queries, names = draws.normal(size=(5, 4)).round(1), [str(number) for number in draws.permutation(60)]
    expected = [
        ranked({name: float(query @ row) for name, row in zip(names, documents, strict=True)})[:20] for query in queries
    ]
    for block in (1, 7, 60, 1000):
        assert best(queries, documents, names, most=20, block=block) == expected
    assert of_query({expected[0][0]: 1}, expected[0])["ndcg_at_10"] == 1.0


def test_a_missing_package_is_named_with_what_brings_it() -> None:
    with pytest.raises(HarnessError, match=r"V-measure needs the package nowhere_to_be.*token-harness\[embeddings\]"):
        needed("nowhere_to_be.found", by="V-measure")
