"""Records as rows of plain values, one a score of a run, and as a pandas frame that mixes nothing unless told to."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.records import ledger
from harness.records.grouping import Keys, newest_of_each, table_content, weights_label
from harness.records.labels import method_label, model_label, tool_label
from harness.records.record import Record

if TYPE_CHECKING:
    import pandas

INDEX = ("model", "weights", "task", "metric", "filter", "method", "options", "seed")
"""What tells the rows of ``frame`` apart; its index."""


def options_text(record: Record) -> str:
    """Return the method's options as JSON, empty where it has none."""
    return _json(record.method.options)


def asked_with(record: Record) -> dict[str, Any]:
    """Return what else decided the questions and answers, in plain values: empty where it is nothing out of the ordinary."""
    settings = record.settings
    return {
        "fewshot_seed": record.fewshot_seed,
        "chat_template": str(settings.apply_chat_template) if settings.apply_chat_template else "",
        "system_instruction": settings.system_instruction or "",
        "gen_kwargs": _json(settings.gen_kwargs),
        "model_args": _json(settings.model_args),
    }


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=str) if content else ""


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return what each record says in plain values; of two with the same key the later one counts."""
    kept, _, _ = newest_of_each(records, Keys())
    return [row(records[index]) for index in kept]


def row(record: Record) -> dict[str, Any]:
    """Return what one record says: model, method, task, metric, value, standard error, counts, costs and its key."""
    seeds, plugin, settings = record.seeds, record.plugin, record.settings
    return {
        "model": model_label(record),
        "weights": weights_label(record),
        "plugin": plugin.name,
        "plugin_version": plugin.version,
        "code_digest": plugin.code_digest,
        "method": method_label(record),
        "options": options_text(record),
        "seed": seeds.random,
        "task": record.task.name,
        "task_version": record.task.version,
        "is_group": record.task.group,
        "metric": record.metric.name,
        "filter": record.metric.filter,
        "higher_is_better": record.metric.higher_is_better,
        "value": record.value,
        "stderr": record.stderr,
        "documents": record.counts.docs if record.states("counts.docs") else None,
        "shots": settings.num_fewshot or 0 if record.states("settings.num_fewshot") else None,
        "limit": settings.limit,
        **asked_with(record),
        "documents_digest": record.task.docs_digest,
        "prompts_digest": record.task.prompts_digest,
        "model_digest": record.model.digest,
        "train_seconds": record.cost.apply_seconds if record.states("cost") else None,
        "evaluate_seconds": record.cost.evaluate_seconds if record.states("cost") else None,
        "peak_bytes": max(record.cost.apply_peak_bytes or 0, record.cost.evaluate_peak_bytes or 0) or None,
        "tokens_trained": record.cost.tokens_trained,
        "device": record.environment.device,
        "measured_by": tool_label(record) or None,
        "created": record.created,
        "run": record.run,
        "key": record.key(),
    }


def frame(paths: Path | str | Iterable[Path | str], *, mixes: Sequence[str] = (), **only: str) -> pandas.DataFrame:
    """Return records as a pandas frame, one row a score of a run.

    A mean over models, quantisations, filters or other questions of one task says nothing, so a frame has one of each
    unless it is told which to mix; all of them are in its index, with method, options and seed. Lines that are no records
    are told by a ``UserWarning``.

    Args:
        paths: a file or folder of records, or several.
        mixes: what may differ between rows: ``model``, ``weights``, ``filter``, ``questions`` (documents, shots,
            limit, version or prompts of one task), ``arguments`` (of one model) and ``code`` (of one method).
        only: keep the rows whose column of that name has that value: ``task="langgame"``, ``metric="acc"``.

    Returns:
        A frame with ``INDEX`` as its index and the other fields of ``row`` as its columns.

    Raises:
        HarnessError: a path is missing, a column has no such name, nothing is left, or the rows mix what is not in ``mixes``.
    """
    import pandas

    kept = _chosen(_read(paths), only)
    unknown = sorted({*mixes} - {*_MIXED})
    if unknown:
        raise HarnessError(f"frames mix {', '.join(_MIXED)}, and know no '{printable(unknown[0])}'")
    for name, of in _MIXED.items():
        if name not in mixes:
            _refuse_mixture(kept, name, of)
    table = pandas.DataFrame([row(record) for record in kept])
    return table.set_index([*INDEX]).sort_index()


def _read(paths: Path | str | Iterable[Path | str]) -> list[Record]:
    several = [paths] if isinstance(paths, Path | str) else list(paths)
    found: list[Record] = []
    for path in several:
        reading = ledger.read(Path(path))
        found += reading.records
        if reading.problems:
            more = f", and {len(reading.problems) - 1} more" if len(reading.problems) > 1 else ""
            warnings.warn(f"left out: {reading.problems[0]}{more}", stacklevel=4)
    return found


def _chosen(records: Sequence[Record], only: Mapping[str, str]) -> list[Record]:
    kept, _, _ = newest_of_each(records, Keys())
    found = [(records[index], row(records[index])) for index in kept]
    if not found:
        raise HarnessError("there are no records at these paths")
    known = found[0][1]
    for name, value in only.items():
        if name not in known:
            raise HarnessError(f"records have no column '{printable(name)}'; there are {', '.join(known)}")
        left = [pair for pair in found if str(pair[1][name]) == str(value)]
        if not left:
            there = ", ".join(sorted({str(each[name]) for _, each in found}))
            raise HarnessError(f"no record has {name} '{printable(value)}'; there are {printable(there)}")
        found = left
    return [record for record, _ in found]


def _refuse_mixture(records: Sequence[Record], name: str, of: Callable[[Record], tuple[str, str]]) -> None:
    known: dict[str, set[str]] = {}
    for record in records:
        which, value = of(record)
        known.setdefault(which, set()).add(value)
    for which, values in known.items():
        if len(values) > 1:
            several = ", ".join(sorted(printable(value) for value in values))
            raise HarnessError(
                f"{which or 'these records'} would mix {len(values)} {name} values ({several}); choose one of them, or allow "
                f"it with mixes=('{name}',)"
            )


def _questions(record: Record) -> tuple[str, str]:
    content = {name: value for name, value in table_content(record).items() if value not in (None, False, {}, [])}
    return f"task {record.task.name}", json.dumps(content, sort_keys=True, default=str)


_MIXED: dict[str, Callable[[Record], tuple[str, str]]] = {
    "model": lambda record: ("", f"{model_label(record)} {record.model.digest[:8]}"),
    "weights": lambda record: ("", weights_label(record)),
    "filter": lambda record: (f"{record.task.name}, {record.metric.name}", record.metric.filter),
    "questions": _questions,
    "arguments": lambda record: (f"model {model_label(record)}", _json(record.settings.model_args) or "none"),
    "code": lambda record: (
        f"method {method_label(record)}",
        f"{record.plugin.version} {(record.plugin.code_digest or 'unknown')[:8]}" if not record.is_baseline else "",
    ),
}
