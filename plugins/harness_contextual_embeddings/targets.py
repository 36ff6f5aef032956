"""Text2Token targets: which tokens an embedding should bring to mind, by the corpus or by the model itself.

A target is a list of (token id, weight), the heaviest first, equal ones by id, weights summing to 1; None where nothing is left
of a text's tokens, which is counted and never made a uniform target.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy

Target = list[tuple[int, float]]
TermFrequency = Literal["log", "count", "binary"]


def usable_ids(vocabulary: Sequence[str], special_ids: Collection[int], stop_words: Collection[str]) -> frozenset[int]:
    """Return the ids that may be in a target.

    Left out are special tokens, those without a letter or digit (white space, punctuation, parts of characters), and stop words.

    Args:
        vocabulary: the text of each id.
        special_ids: special and added tokens.
        stop_words: lower-case words.
    """
    special, stopped = set(special_ids), set(stop_words)
    return frozenset(
        number
        for number, text in enumerate(vocabulary)
        if number not in special and any(map(str.isalnum, text)) and text.strip().lower() not in stopped
    )


def data_targets(
    texts: Sequence[Sequence[int]],
    *,
    vocabulary: Sequence[str],
    special_ids: Collection[int],
    stop_words: Collection[str],
    top_k: int,
    max_df: float,
    tf: TermFrequency,
) -> list[Target | None]:
    """Return the targets that a corpus gives its texts: their own tokens that few other texts have.

    A token weighs its term frequency times ``ln((1 + N) / (1 + df))``, df the number of texts that have it.

    Args:
        texts: the N texts' ids, without special tokens.
        vocabulary: the text of each id.
        special_ids: special and added tokens.
        stop_words: lower-case words.
        top_k: most tokens of a target.
        max_df: tokens in a larger share of the texts are left out.
        tf: ``log`` is 1 + ln of the count, ``count`` the count, ``binary`` 1.
    """
    usable = usable_ids(vocabulary, special_ids, stop_words)
    counts = [Counter(text) for text in texts]
    frequencies = Counter(token for of_text in counts for token in of_text)
    usable = frozenset(token for token in usable if frequencies[token] / max(1, len(texts)) <= max_df)
    rarity = {token: math.log((1 + len(texts)) / (1 + number)) for token, number in frequencies.items()}
    return [
        _normalised(
            {token: _term_frequency(count, tf) * rarity[token] for token, count in of_text.items() if token in usable},
            top_k,
        )
        for of_text in counts
    ]


def model_target(
    logits: Any,
    mean_logits: Any,
    text: Iterable[int],
    *,
    vocabulary: Sequence[str],
    special_ids: Collection[int],
    stop_words: Collection[str],
    top_k: int = 32,
    temperature: float = 1.0,
    prior: bool = True,
    beyond_text: bool = True,
) -> Target | None:
    """Return the target that a model's own next-token logits after a prompt around a text give it.

    Args:
        logits: (V,) of the frozen model.
        mean_logits: (V,), their mean over the corpus; may be None where ``prior`` is False.
        text: the text's ids.
        vocabulary: the text of each id.
        special_ids: special and added tokens.
        stop_words: lower-case words.
        top_k: most tokens of a target.
        temperature: of the softmax over those that are kept, above 0.
        prior: take what the model says of every text out of the logits.
        beyond_text: leave out tokens of the text itself, too.
    """
    usable = usable_ids(vocabulary, special_ids, stop_words)
    taken_out = mean_logits if prior else None
    return strongest(
        logits, taken_out, usable - set(text) if beyond_text else usable, top_k=top_k, temperature=temperature
    )


def strongest(
    logits: Any, mean_logits: Any, usable: Collection[int], *, top_k: int, temperature: float
) -> Target | None:
    """Return the softmax over the ``top_k`` largest logits of usable ids; ``mean_logits`` (V,) or None is taken out first."""
    values = numpy.asarray(logits, dtype=numpy.float64)
    if mean_logits is not None:
        values = values - numpy.asarray(mean_logits, dtype=numpy.float64)
    ids = numpy.fromiter(sorted(usable), dtype=numpy.int64, count=len(usable))
    if not len(ids):
        return None
    kept = ids[numpy.lexsort((ids, -values[ids]))[:top_k]]
    weights = numpy.exp((values[kept] - values[kept[0]]) / temperature)
    return list(zip(kept.tolist(), (weights / weights.sum()).tolist(), strict=True))


def mixed(data: Target | None, model: Target | None, share: float) -> Target | None:
    """Return ``share`` of the corpus's target and the rest of the model's; where one is missing, the other."""
    if data is None or model is None:
        return data or model
    weights: Counter[int] = Counter()
    for target, part in ((data, share), (model, 1 - share)):
        for token, weight in target:
            weights[token] += part * weight  # type: ignore[assignment]
    return _normalised(weights, len(weights))


def _term_frequency(count: int, tf: TermFrequency) -> float:
    return {"log": 1 + math.log(count), "count": float(count), "binary": 1.0}[tf]


def _normalised(weights: Mapping[int, float], top_k: int) -> Target | None:
    kept = sorted(
        ((token, weight) for token, weight in weights.items() if weight > 0), key=lambda pair: (-pair[1], pair[0])
    )
    total = math.fsum(weight for _, weight in kept[:top_k])
    return [(token, weight / total) for token, weight in kept[:top_k]] or None
