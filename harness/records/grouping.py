"""Which records are one measurement, stand in one row, and in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.records.record import UNKNOWN, Record


class Keys:
    """The keys of records, computed once for each combination of parts: 100,000 records share a few thousand.

    Parts are told apart by identity: ``ledger.read`` makes equal parts one object, and parts that are equal but not
    the same object only cost a second computation. Rows and runs are numbered.
    """

    def __init__(self) -> None:
        self._boards: dict[tuple[Any, ...], str] = {}
        self._tables: dict[tuple[Any, ...], str] = {}
        self._rows: dict[tuple[Any, ...], int] = {}
        self._runs: dict[tuple[Any, ...], int] = {}
        self._numbers: dict[Any, int] = {}

    def board(self, record: Record) -> str:
        """The record's ``board_key()``."""
        parts = (id(record.model), id(record.task), id(record.settings))
        key = (*parts, record.tokenizer.prefix_token_id, record.fewshot_seed)
        return self._boards.get(key) or self._boards.setdefault(key, record.board_key())

    def table(self, record: Record) -> str:
        """What must agree for rows to stand in one table."""
        key = (id(record.task), id(record.settings), record.fewshot_seed)
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = json.dumps(table_content(record), sort_keys=True, default=str)
        return found

    def row(self, record: Record) -> int:
        """What must agree for records to be the seeds of one row."""
        key = (self.board(record), id(record.plugin), id(record.method))
        found = self._rows.get(key)
        if found is None:
            found = self._rows[key] = self._number((key[0], method_text(record)))
        return found

    def run(self, record: Record) -> int:
        """What ``run_key()`` tells apart: the row and the seeds that decide something."""
        seeds, trial = record.seeds, record.foreign and record.foreign.trial
        key = (self.row(record), record.fewshot_seed, seeds.random, seeds.numpy, seeds.torch, seeds.fewshot, trial)
        found = self._runs.get(key)
        if found is None:
            text = json.dumps(_seeds_of(record), sort_keys=True, default=str)
            found = self._runs[key] = self._number((key[0], text))
        return found

    def _number(self, content: Any) -> int:
        return self._numbers.setdefault(content, len(self._numbers))


def _seeds_of(record: Record) -> Any:
    """Return the seeds that can have made a difference: of answers that are not drawn, the method's and that of shots.

    So ``--seed 0`` and the default, which gives the same method, are not taken for two trials.
    """
    seeds = record.deciding_seeds
    if record.foreign is not None and record.foreign.trial is not None:
        return seeds
    return [record.seeds.random, record.fewshot_seed] if isinstance(seeds, dict) and not record.is_drawn else seeds


def table_content(record: Record) -> dict[str, Any]:
    """Return what must agree for two rows to be ranked together: the board without the model."""
    settings = record.settings.model_dump(exclude={"model_args"})
    # A chat template is the model's own, so the same question is another text for each model.
    prompts = None if settings["apply_chat_template"] else record.task.prompts_digest
    return {
        "task": record.task.name,
        "version": record.task.version,
        "documents": record.task.docs_digest,
        "prompts": prompts,
        "few-shot seed": record.fewshot_seed,
    } | {name.replace("_", " "): value for name, value in settings.items()}


def method_text(record: Record) -> str:
    """Return method, options and code of a record as text: what tells one row from another on a board."""
    return json.dumps([record.plugin.model_dump(), record.method.model_dump()], sort_keys=True, default=str)


def newest_of_each(records: Sequence[Record], keys: Keys) -> tuple[list[int], int, int]:
    """Return the records that count, how many others they replace, and how many of those had another value.

    The place in the ledger decides, not the clock, which may have gone back.
    """
    newest: dict[tuple[int, str, str], int] = {}
    repeated = otherwise = 0
    for index, record in enumerate(records):
        key = (keys.run(record), record.metric.name, record.metric.filter)
        if key in newest:
            repeated += 1
            otherwise += records[newest[key]].value != record.value
        newest[key] = index
    return sorted(newest.values()), repeated, otherwise


def told_apart(boards: Mapping[str, Record]) -> dict[str, str]:
    """Return for each board of a table what tells it from others of the same model and quantisation."""
    alike: dict[tuple[str, str], list[str]] = {}
    for key, record in boards.items():
        alike.setdefault((record.model.name, weights_label(record)), []).append(key)
    variants = dict.fromkeys(boards, "")
    for keys in (keys for keys in alike.values() if len(keys) > 1):
        told = {key: _board_details(boards[key]) for key in keys}
        names = [name for name in next(iter(told.values())) if len({details[name] for details in told.values()}) > 1]
        for key in keys:
            variants[key] = ", ".join(f"{name} {told[key][name]}" for name in names)
    return variants


def _board_details(record: Record) -> dict[str, str]:
    return {
        "files": record.model.digest[:8],
        "tokenizer": (record.model.tokenizer_digest or "unknown")[:8],
        "prefix token": str(record.tokenizer.prefix_token_id),
        "prompts": str(record.task.prompts_digest)[:8],
        "engine": (record.environment.engine or "torch").split()[0],
        "model_args": json.dumps(record.settings.model_args, sort_keys=True, default=str),
    }


def facts(record: Record, *, with_model: bool = True) -> list[str]:
    """Return what all records of a table share, each as a few words; with the model of one board, too."""
    model, settings = record.model, record.settings
    said = [
        f"task version {record.task.version}",
        *([_documents(record)] if record.states("counts.docs") else []),
        *([f"{settings.num_fewshot or 0} shots"] if record.states("settings.num_fewshot") else []),
    ]
    if with_model:
        said.append(weights_label(record))
        if model.bits_per_weight is not None:
            said.append(f"{model.bits_per_weight:g} bits per weight measured")
        said.append(f"model {model.digest[:12]}")
    said.append(f"documents {record.task.docs_digest or UNKNOWN}")
    if record.task.prompts_digest and with_model:
        said.append(f"prompts {record.task.prompts_digest}")
    left_out = {"num_fewshot", "limit", "metadata"} | (set() if with_model else {"model_args"})
    unusual = settings.model_dump(exclude=left_out, exclude_defaults=True)
    said += [f"{name.replace('_', ' ')} {value}" for name, value in unusual.items()]
    if record.fewshot_seed is not None:
        said.append(f"shots drawn with seed {record.fewshot_seed}")
    if with_model and record.tokenizer.prefix_token_id is not None:
        said.append(f"prefix token {record.tokenizer.prefix_token_id}")
    return said


def _documents(record: Record) -> str:
    limit = record.settings.limit
    return f"{record.counts.docs} documents" + (f" (limit {limit:g})" if limit is not None else "")


def weights_label(record: Record) -> str:
    """Return how the weights were held: the type, or the quantisation and the type it computes in."""
    model = record.model
    return model.dtype if model.quantization in {"none", UNKNOWN} else f"{model.quantization} ({model.dtype})"
