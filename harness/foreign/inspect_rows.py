"""Samples of an inspect log as rows in lm-eval's form: one for each document and scorer, epochs joined as inspect does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.foreign.contents import entries, number, part
from harness.foreign.inspect_logs import Log, Scorer, metrics_of, opened, scorers_of

# What inspect's letters are worth, by its documentation; a number is itself.
VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
# Of a longer document the digest is kept, and its beginning.
MOST_DOCUMENT_BYTES, KEPT_CHARACTERS = 1_000_000, 2000
MOST_ANSWER_CHARACTERS = 100_000


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a log, in the order of its data set.

    Raises:
        HarnessError: the log cannot be read, or a sample in it is damaged.
    """
    with opened(path) as log:
        scorers = [(scorer, list(metrics_of(score))) for scorer, score in scorers_of(log)]
        reduced = {scorer: _reduced(log, scorer) for scorer, _ in scorers}
        by_id: dict[int | str, list[int]] = {}
        for sample_id, epoch in sorted(log.samples, key=lambda key: key[1]):
            by_id.setdefault(sample_id, []).append(epoch)
        for place, sample_id in enumerate(log.ids()):
            asked = [log.samples[sample_id, epoch]() for epoch in by_id[sample_id]]
            shared = _shared(sample_id, place, asked)
            for scorer, metrics in scorers:
                value = reduced[scorer].get(sample_id)
                if value is None and sample_id not in reduced[scorer] and len(asked) == 1:
                    value = _value_in(asked[0], scorer)
                yield {
                    **shared, "filtered_resps": [_answer(asked, scorer)], "filter": scorer.filter,
                    "metrics": [] if value is None else metrics, **(dict.fromkeys(metrics, value) if value is not None else {}),
                }  # fmt: skip


def worth(value: Any) -> float | None:
    """Return what a value of a score is as a number, None where it is none."""
    if isinstance(value, str):
        if value in VALUES or value.lower() in _WORDS:
            return VALUES.get(value, _WORDS.get(value.lower()))
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, bool) else number(value)


def _reduced(log: Log, scorer: Scorer) -> dict[int | str, float | None]:
    """Return the value of each document as inspect made it of the epochs, empty where the log does not tell."""
    for one in log.reductions:
        if part(one).get("scorer") in {scorer.name, scorer.scorer} and part(one).get("reducer") == scorer.reducer:
            samples = [sample for sample in entries(one, "samples") if isinstance(sample, dict)]
            return {sample.get("sample_id"): _of(sample.get("value"), scorer) for sample in samples}  # type: ignore[misc]
    return {}


def _value_in(sample: Mapping[str, Any], scorer: Scorer) -> float | None:
    return _of(part(sample, "scores", scorer.scorer).get("value"), scorer)


def _of(value: Any, scorer: Scorer) -> float | None:
    """Return a value as a number; of several under one scorer, that of the score's own name."""
    return worth(value.get(scorer.name) if isinstance(value, dict) else value)


def _shared(sample_id: int | str, place: int, asked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the rows of a document have in common."""
    first = asked[0]
    doc = {"id": sample_id, "input": _plain(first.get("input")), "target": first.get("target")}
    if first.get("choices"):
        doc["choices"] = first["choices"]
    text = _document(doc)
    if len(text) > MOST_DOCUMENT_BYTES:
        doc = {
            "id": sample_id,
            "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            "begins": text[:KEPT_CHARACTERS],
        }
        text = _document(doc)
    target = first.get("target")
    is_number = type(sample_id) is int and 0 <= sample_id < 1 << 62
    return {
        "doc_id": sample_id if is_number else place,
        **({} if is_number else {"doc_name": str(sample_id)}),
        "doc": doc,
        "target": target if isinstance(target, str) else json.dumps(target, ensure_ascii=False),
        "arguments": {"gen_args_0": {"arg_0": _prompt(first), "arg_1": {}}},
        "resps": [[_completion(sample) for sample in asked]],
        "doc_hash": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    }  # fmt: skip


def _document(doc: Mapping[str, Any]) -> str:
    return json.dumps(doc, indent=2, ensure_ascii=False)  # as lm-eval writes a document before it digests it


def _plain(given: Any) -> Any:
    """Return an input without the names that each run gives its messages anew."""
    if not isinstance(given, list):
        return given
    return [{name: message.get(name) for name in ("role", "content")} for message in given if isinstance(message, dict)]


def _prompt(sample: Mapping[str, Any]) -> str:
    """Return what stood before the model when it answered first."""
    said = []
    for message in entries(sample, "messages"):
        if part(message).get("role") == "assistant":
            break
        said.append(_said(message))
    if not said:
        given = sample.get("input")
        said = [given] if isinstance(given, str) else [_said(message) for message in given or []]
    return "\n\n".join(said)[:MOST_ANSWER_CHARACTERS]


def _said(message: Any) -> str:
    content = part(message).get("content")
    if isinstance(content, str):
        return content
    texts = [part(one).get("text") for one in content] if isinstance(content, list) else []
    return "\n".join(text for text in texts if isinstance(text, str))


def _completion(sample: Mapping[str, Any]) -> str:
    output = part(sample, "output")
    text = output.get("completion")
    if not isinstance(text, str):  # older logs have it in the message alone
        choices = entries(output, "choices")
        text = _said(part(choices[0]).get("message")) if choices else ""
    return text[:MOST_ANSWER_CHARACTERS]


def _answer(asked: Sequence[Mapping[str, Any]], scorer: Scorer) -> str:
    """Return what the scorer read as the answer, else what the model wrote; of several epochs all of them."""
    found = []
    for sample in asked:
        answer = part(sample, "scores", scorer.scorer).get("answer")
        found.append(answer[:MOST_ANSWER_CHARACTERS] if isinstance(answer, str) else _completion(sample))
    return found[0] if len(set(found)) == 1 else " / ".join(found)
