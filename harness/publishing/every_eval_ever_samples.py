"""Sample rows of lm-eval to the instance files of Every Eval Ever: one line for each document and metric."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from harness.errors import HarnessError
from harness.publishing.files import PlannedFile
from harness.publishing.metrics import is_share
from harness.publishing.selection import Item, SampleFile, where
from harness.records import answers


@dataclass(frozen=True)
class Identity:
    """What each line repeats from the file it belongs to."""

    schema_version: str
    evaluation_id: str
    model_id: str
    evaluation_name: str


@dataclass(frozen=True)
class InstanceFile:
    """An instance file, and what the file of the evaluation says of it."""

    file: PlannedFile
    sha256: str
    rows: int

    def reference(self) -> dict[str, Any]:
        """Return the field that points to it."""
        return {
            "format": "jsonl",
            "file_path": self.file.path.as_posix(),
            "hash_algorithm": "sha256",
            "checksum": self.sha256,
            "total_rows": self.rows,
        }


def sample_file(items: Sequence[Item], identity: Identity, path: PurePosixPath) -> InstanceFile | None:
    """Return the instance file of the metrics of one task of one run; None when no row has a number of theirs.

    Raises:
        HarnessError: a line of the sample file is no JSON object.
    """
    file = next((item.samples for item in items if item.samples is not None), None)
    if file is None:
        return None
    metrics = [(item.record.metric.name, item.record.metric.filter) for item in items]

    def blocks() -> Iterator[bytes]:
        for row in _rows(file, items[0]):
            for line in _lines(row, metrics, identity):
                # ASCII: readers that split lines where Unicode does would cut an answer in two.
                yield json.dumps(line, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"

    digest, count = hashlib.sha256(), 0
    for block in blocks():
        digest.update(block)
        count += 1
    return InstanceFile(PlannedFile(path, blocks), digest.hexdigest(), count) if count else None


def _rows(file: SampleFile, item: Item) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file.blocks(), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise HarnessError(f"{where(item.origin)}: line {number} of its sample file is no JSON") from error
        if isinstance(row, dict):
            yield row


def _lines(row: dict[str, Any], metrics: Sequence[tuple[str, str]], identity: Identity) -> Iterator[dict[str, Any]]:
    chosen = str(row.get("filter", "none"))
    for metric, filter_name in metrics:
        score = row.get(metric)
        if filter_name == chosen and isinstance(score, int | float) and math.isfinite(score):
            yield whole(_line(row, metric, chosen, float(score), identity))


def _line(row: dict[str, Any], metric: str, chosen: str, score: float, identity: Identity) -> dict[str, Any]:
    prompt, reference = answers.prompt(row), str(row.get("target", ""))
    choices = [choice.text for choice in answers.continuations(row)]
    output = _output(row)
    return {
        "schema_version": identity.schema_version,
        "evaluation_id": identity.evaluation_id,
        "model_id": identity.model_id,
        "evaluation_name": identity.evaluation_name,
        "evaluation_result_id": f"{metric},{chosen}",
        "sample_id": str(row.get("doc_id", "")),
        "sample_hash": hashlib.sha256((prompt + reference).encode("utf-8", "replace")).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": prompt, "reference": [reference], "choices": choices if len(choices) > 1 else None},
        "output": {"raw": output},
        "messages": None,
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": output[0] if output else "",
                "extraction_method": chosen,
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": score, "is_correct": is_share(metric) and score == 1.0},
        "metadata": {
            name: str(row[name]) for name in ("doc_hash", "prompt_hash", "target_hash") if row.get(name) is not None
        }
        | {"filter": chosen, "metric": metric, "is_correct_applies": str(is_share(metric)).lower()},
    }


def _output(row: dict[str, Any]) -> list[str]:
    """Return what the model answered: the text it wrote, the choice it found likeliest, or its log-likelihoods."""
    written = answers.texts(row)
    if written:
        return written
    choices, number = answers.continuations(row), answers.chosen(row)
    if number is not None:
        return [choices[number].text]
    return [json.dumps(row.get("filtered_resps", row.get("resps")), ensure_ascii=False)]


def whole(value: Any) -> Any:
    """Return JSON whose texts UTF-8 can hold: half of a surrogate pair becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    return [whole(inner) for inner in value] if isinstance(value, list) else value
