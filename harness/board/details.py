"""What a click on a row of the page shows: options, exact commands, versions, cost, and a few answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from harness.board.board import seed_label
from harness.board.scores_by_document import Example
from harness.board.tables import Board, Row, Table
from harness.names import printable
from harness.records.record import Record

NO_EXAMPLES = "The sample files of this row were not beside its records when the page was made."
Pairs = list[list[str]]


class Details:
    """Collects the details of rows; texts that many rows share stand in ``pool`` once and are named by their place.

    Attributes:
        rows: one object for each row, in the order of ``add``.
        seeds: for each row and metric the value of each seed, for rows with several.
        pool: texts and lists of pairs.
    """

    def __init__(self, board: Board) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seeds: dict[int, list[Pairs]] = {}
        self.pool: list[Any] = []
        self._places: dict[str, int] = {}
        # Parts of records that were read are shared, so most contents are known by the objects they are made of.
        self._known: dict[tuple[Any, ...], int] = {}
        self._board = board

    def add(self, table: Table, row: Row) -> int:
        """Take in one row and return its number."""
        first, records = row.first, [self._board.records[source] for source in row.sources]
        environments = [self._environment(record) for record in records]
        number = len(self.rows)
        self.rows.append(
            {
                "options": self._place(("options", id(first.method)), lambda: _options(first)),
                "model": self._place(
                    ("model", id(first.model), id(first.tokenizer), id(first.plugin)), lambda: _model(first)
                ),
                "cost": self._pooled(_cost(records)),
                "commands": self._by_seed("Command", records, [self._pooled(printable(r.command)) for r in records]),
                "environments": self._by_seed("Environment", records, environments),
                "examples": [_example(example) for example in self._examples(row)],
            }
        )
        if len(records) > 1:
            self.seeds[number] = [_seeds(row, metric.name, metric.filter) for metric in table.metrics]
        return number

    def _examples(self, row: Row) -> list[Example]:
        return next(filter(None, (self._board.files.examples(source) for source in row.sources)), [])

    def _environment(self, record: Record) -> int:
        return self._place(("environment", id(record.environment)), lambda: _environment(record))

    def _by_seed(self, title: str, records: Sequence[Record], places: Sequence[int]) -> list[list[Any]]:
        """Return each different content once, with the seeds it belongs to in its title."""
        seeds: dict[int, list[str]] = {}
        for record, place in zip(records, places, strict=True):
            seeds.setdefault(place, []).append(seed_label(record))
        if len(seeds) == 1:
            return [[title, place] for place in seeds]
        return [[f"{title}, seed {' and '.join(names)}", place] for place, names in seeds.items()]

    def _place(self, key: tuple[Any, ...], make: Callable[[], Any]) -> int:
        if key not in self._known:
            self._known[key] = self._pooled(make())
        return self._known[key]

    def _pooled(self, content: Any) -> int:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        if text not in self._places:
            self._places[text] = len(self.pool)
            self.pool.append(content)
        return self._places[text]


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"


def size(count: int | None) -> str:
    """Return bytes as people say them, a dash where nobody knows."""
    if count is None:
        return "–"
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def number(count: int | None) -> str:
    """Return a count as people say it, a dash where nobody knows."""
    if count is None:
        return "–"
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return str(count)


def p_value(p: float) -> str:
    """Return p with the digits that matter."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def text_lines(text: str) -> str:
    """Return foreign text with its line ends kept and every other control made visible."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


def _options(record: Record) -> Pairs:
    return [[printable(name), _value(value)] for name, value in record.method.options.items()]


def _model(record: Record) -> Pairs:
    model, tokenizer, plugin = record.model, record.tokenizer, record.plugin
    return _pairs(
        {
            "model": model.name,
            "revision": model.revision,
            "digest": model.digest,
            "type of weights": model.dtype,
            "quantization": model.quantization,
            "bits per weight": model.bits_per_weight,
            "parameters": None if model.parameters is None else f"{model.parameters:,}",
            "changed by the method": None if model.weights_changed is None else f"{model.weights_changed:,}",
            "tokenizer": tokenizer.digest,
            "vocabulary": None if tokenizer.vocabulary is None else f"{tokenizer.vocabulary:,}",
            "prefix token": tokenizer.prefix_token_id,
            "plugin": " ".join(filter(None, (plugin.name, plugin.distribution, plugin.version, plugin.code_digest))),
        }
    )


def _cost(records: Sequence[Record]) -> Pairs:
    costs = [record.cost for record in records]
    return _pairs(
        {
            "method": _joined([duration(cost.apply_seconds) for cost in costs]),
            "evaluation": _joined([duration(cost.evaluate_seconds) for cost in costs]),
            "memory, method": _joined([size(cost.apply_peak_bytes) for cost in costs]),
            "memory, evaluation": _joined([size(cost.evaluate_peak_bytes) for cost in costs]),
            "tokens trained": _joined([number(cost.tokens_trained) for cost in costs]),
            "batch size": _joined([record.batch_size for record in records]),
            "truncated requests": _joined([str(record.counts.truncated_requests) for record in records]),
            "made": _joined([record.created for record in records]),
        }
    )


def _environment(record: Record) -> Pairs:
    return _pairs(record.environment.model_dump())


def _seeds(row: Row, name: str, filter_name: str) -> Pairs:
    score = row.scores.get((name, filter_name))
    if score is None:
        return []
    return [[seed, "none" if value is None else f"{value:.4f}"] for seed, value in score.by_seed]


def _example(example: Example) -> list[str]:
    return [
        text_lines(part) for part in (example.document, example.prompt, example.answer, example.target, example.scores)
    ]


def _pairs(content: dict[str, Any]) -> Pairs:
    return [[printable(name), _value(value)] for name, value in content.items() if value not in (None, "", "–")]


def _value(value: Any) -> str:
    """Return a value as text: strings as they are, the rest as JSON."""
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _joined(texts: Sequence[str]) -> str:
    """Return the texts of all seeds, one when they agree."""
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)
