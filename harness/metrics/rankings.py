"""Rankings of documents against judgements, by the rules of trec_eval and pytrec_eval, with nothing left open by ties.

Scores are compared in single precision, equal ones by document id as text, the higher first. Gains are the grades
themselves, negative ones gain nothing, and the ideal ranking counts documents that were not found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from harness.errors import HarnessError
from harness.names import printable

Judgements = Mapping[str, Mapping[str, int]]
Scores = Mapping[str, Mapping[str, float]]
CUT, DEEP_CUT = 10, 100


def ranking(judgements: Judgements, scores: Scores) -> dict[str, Any]:
    """Score the rankings of queries.

    Args:
        judgements: by query, the grade of each judged document; a document counts as relevant from grade 1 on.
        scores: by query, the score of each document that was found. A query without judgements is not scored.

    Returns:
        ``per_query``: for each query with scores and judgements ``ndcg_at_10``, ``average_precision``,
        ``reciprocal_rank_at_10``, ``recall_at_10`` and ``recall_at_100``, 0 where no document is relevant;
        ``mean_over_answered``: their means; ``unanswered``: the judged queries that have no scores and stand in no mean.

    Raises:
        HarnessError: a score is no finite number of single precision, or no query has scores and judgements.
    """
    answered = [query for query in scores if query in judgements]
    per_query = {query: of_query(judgements[query], ranked(scores[query], query=query)) for query in answered}
    if not per_query:
        raise HarnessError("no query has both judgements and scores, so there is no ranking to score")
    names = next(iter(per_query.values()))
    means = {name: math.fsum(row[name] for row in per_query.values()) / len(per_query) for name in names}
    unanswered = [query for query in judgements if query not in scores]
    return {"per_query": per_query, "mean_over_answered": means, "unanswered": unanswered}


def ranked(scores: Mapping[str, float], *, query: str = "") -> list[str]:
    """Return the documents of one query, best first.

    Args:
        scores: by document id.
        query: its id, for people.

    Raises:
        HarnessError: a score is no finite number of single precision.
    """
    with numpy.errstate(over="ignore"):
        single = {document: float(numpy.float32(score)) for document, score in scores.items()}
    for document, score in single.items():
        if not math.isfinite(score):
            raise HarnessError(
                f"document '{printable(document)}' has the score {scores[document]} for query '{printable(query)}'; finite "
                "numbers of single precision can be ranked"
            )
    return sorted(single, key=lambda document: (single[document], document), reverse=True)


def of_query(grades: Mapping[str, int], documents: Sequence[str]) -> dict[str, float]:
    """Return the metrics of one query.

    Args:
        grades: by document id; what is not judged counts 0.
        documents: ids, best first.
    """
    gains = [max(0, grades.get(document, 0)) for document in documents]
    relevant = sum(grade > 0 for grade in grades.values())
    ideal = _discounted(sorted((max(0, grade) for grade in grades.values()), reverse=True))
    places = [place for place, gain in enumerate(gains, start=1) if gain > 0]
    precisions = [number / place for number, place in enumerate(places, start=1)]
    return {
        "ndcg_at_10": _discounted(gains) / ideal if ideal else 0.0,
        "average_precision": math.fsum(precisions) / relevant if relevant else 0.0,
        "reciprocal_rank_at_10": 1 / places[0] if places and places[0] <= CUT else 0.0,
        "recall_at_10": _recall(places, relevant, CUT),
        "recall_at_100": _recall(places, relevant, DEEP_CUT),
    }


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains[:CUT], start=1))


def _recall(places: Sequence[int], relevant: int, cut: int) -> float:
    return sum(place <= cut for place in places) / relevant if relevant else 0.0
