"""How long a run will take and how much memory, as far as earlier records of the same model on such a device tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.names import printable
from harness.run.environment import environment
from harness.run.identity import plugin_part

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.preparing import Prepared


@dataclass(frozen=True)
class Estimate:
    """A number, and the sentence on what it is taken from."""

    value: float
    basis: str


@dataclass(frozen=True)
class Size:
    """What of a task decides how long it takes: its documents, the tokens asked for, and those with common beginnings once."""

    name: str
    shots: int
    docs: int
    tokens: int
    distinct_tokens: int
    writes_text: bool


def alike(prepared: Prepared, records: Sequence[Record], *, device: str, dtype: str) -> list[Record]:
    """Return the records of tasks that this model answered on such a device, those of groups left out.

    Args:
        device: where the model is going to be, as torch spells it.
        dtype: of its weights.
    """
    source, here = prepared.source, environment(device)
    return [
        record
        for record in records
        if not record.task.group
        and record.status == "ok"
        and (record.model.digest, record.model.quantization) == (source.digest, source.quantization)
        and (record.model.dtype == dtype or source.quantization != "none")
        and (record.environment.device, record.environment.platform) == (here.device, here.platform)
    ]


def seconds(task: Size, records: Sequence[Record], method: str) -> Estimate | None:
    """Return how long a task will be asked: from the same task, or from the tokens of others where no text is written."""
    same = [r for r in records if r.task.name == task.name and (r.settings.num_fewshot or 0) == task.shots]
    for mine in (True, False):
        found = [r for r in same if (r.method.name == method) == mine and r.counts.docs]
        if found:
            best = max(found, key=lambda r: (r.counts.docs, r.created))
            whose = "" if mine else f" of {printable(best.method.name)}"
            basis = (
                f"{best.counts.docs:,} documents of it took {best.cost.evaluate_seconds:.1f} s{whose} ({_place(best)})"
            )
            return Estimate(best.cost.evaluate_seconds * task.docs / best.counts.docs, basis)
    others = {(r.run, r.task.name): r for r in records if r.generation is None and _tokens(r)}
    if task.writes_text or not others or not task.tokens:
        return None
    is_shared = not any((record.cost.scoring or {}).get("plain_tokens") for record in others.values())
    spent = sum(record.cost.evaluate_seconds for record in others.values())
    tokens = sum(_tokens(record, is_shared=is_shared) for record in others.values())
    return Estimate(
        spent * (task.distinct_tokens if is_shared else task.tokens) / tokens,
        f"{tokens:,} tokens of {len(others)} tasks of this model took {spent:.1f} s",
    )


def apply_seconds(prepared: Prepared, records: Sequence[Record]) -> Estimate | None:
    """Return how long the method will take, where it was applied with the same options, whatever the seed."""
    from harness.methods.options import resolved_options

    part, method = plugin_part(prepared.plugin, prepared.method), prepared.method
    options = resolved_options(method)
    found = [
        record
        for record in records
        if (record.plugin.name, record.method.name) == (part.name, method.name) and record.method.options == options
    ]
    if not found:
        return None
    best = max(found, key=lambda record: record.created)
    return Estimate(best.cost.apply_seconds, f"it took that with seed {best.seeds.random} ({_place(best)})")


def peak_bytes(records: Sequence[Record], method: str) -> Estimate | None:
    """Return the most memory that this model took so far, applying and answering."""
    mine = [record for record in records if record.method.name in (method, "baseline")]
    if not any(map(_peak, mine)):
        return None
    most = max(mine, key=_peak)
    asked = len({(record.run, record.task.name) for record in mine})
    return Estimate(_peak(most), f"the most of {asked} tasks asked before ({_place(most)})")


def _peak(record: Record) -> int:
    return max(record.cost.apply_peak_bytes or 0, record.cost.evaluate_peak_bytes or 0)


def _tokens(record: Record, *, is_shared: bool = True) -> int:
    """Return how many tokens a task took; of a model that shares beginnings, with these once."""
    counted = (record.cost.scoring or {}).get("distinct_tokens" if is_shared else "requested_tokens")
    return counted if isinstance(counted, int) else 0


def _place(record: Record) -> str:
    return printable(record.run or "a ledger")
