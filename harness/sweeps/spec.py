"""``sweep.yaml`` read: its keys are flags of ``harness eval``, its lists axes, and each combination is a cell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.methods import Baseline
from harness.names import printable
from harness.run.shard import MOST as MOST_SHARDS
from harness.run.shard import Shard
from harness.sweeps import keys, located
from harness.sweeps.baselines import first_clash, untouched, with_baselines, without_repeats
from harness.sweeps.cell import Cell, Sweep
from harness.sweeps.checking import Checks
from harness.sweeps.drafts import Draft, drafts, labelled
from harness.sweeps.located import Located
from harness.sweeps.written import Written, output_of, take_apart

# Axes that say nothing of the untouched model.
_OF_METHODS = ("plugin", "method", "method_args")


def read(path: Path) -> Sweep:
    """Return the sweep that a file describes, all of it checked that needs no model and no data.

    Raises:
        HarnessError: one sentence with file and line: it is no YAML, has a key, a method, an option, a value or a task that
            there is not, an empty list, a checkpoint that is missing, or two cells that would write the same records.
    """
    return sweep_of(located.read(path), file=path.absolute())


def sweep_of(content: Located, *, file: Path) -> Sweep:
    """Return the sweep that a file's content describes. Raises ``HarnessError`` as ``read``."""
    folder = _folder(content, file)
    with contextlib.chdir(folder):
        checks = Checks()
        written = take_apart(content, folder=folder, options=checks.options_of)
        combinations, notes = written.combinations()
        labels = labelled(written, combinations)
        output = output_of(written.entries)
        found = drafts(written, combinations, output, labels)
        processes = _section("accelerate", written, keys.LAUNCH).get("num_processes", 1)
        cells = [_cell(draft, checks, written.at, processes) for draft in found]
        if _wants_baselines(written):
            dropped = frozenset(label for name, label in labels.items() if name.split(".")[0] in _OF_METHODS)
            cells = with_baselines(
                cells, brings_tasks=checks.brings_tasks, depends_on_seed=checks.draws_shots, dropped=dropped
            )
        kept = without_repeats(cells, depends_on_seed=checks.depends_on_seed)
    if (clash := first_clash(kept)) is not None:
        first, second, name = clash
        raise content.entries.get(name, content).mistake(
            f"the cells '{first.title}' and '{second.title}' would write the same records, as {name} decides no score; give one"
        )
    engines = {name: _section(name, written, known) for name, known in keys.ENGINES.items() if name in content.entries}
    merged = len(cells) - len(kept)
    whole = tuple(_sharded(kept, written))
    return Sweep(file, (folder / output).absolute(), whole, engines, root=folder, merged=merged, notes=tuple(notes))


def _folder(content: Located, file: Path) -> Path:
    """Return where the paths of a sweep begin."""
    value = content.entries.get("folder")
    if value is None or value.value is None:
        return file.parent
    keys.once("folder", value)
    folder = Path(os.path.normpath(file.parent / Path(value.text).expanduser()))
    if not folder.is_dir():
        raise value.mistake(f"no folder is at '{printable(value.text)}'")
    return folder


def _cell(draft: Draft, checks: Checks, at: Located, processes: int) -> Cell:
    """Return the cell of a draft, after every check; the untouched model's is spelled as it is everywhere."""
    if not draft.run.tasks:
        raise draft.mistake(
            "no task is named; give tasks: NAME (`harness tasks` lists them)", [*draft.settings][-1:], at
        )
    method = checks.check(draft, at)
    run = draft.run
    if isinstance(method, Baseline):
        run = untouched(run, needs_plugin=checks.brings_tasks(run))
    return Cell(run, draft.axes, processes)


def _wants_baselines(written: Written) -> bool:
    value = written.entries.get("baseline")
    if value is None or value.value is None:
        return True
    if value.mark not in {"once", "none"}:
        raise value.mistake(f"baseline is '{printable(value.mark)}'; it has to be once or none")
    return value.mark == "once"


def _section(name: str, written: Written, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    value = written.entries.get(name)
    return {} if value is None else keys.checked_section(name, value, known)


def _sharded(cells: Sequence[Cell], written: Written) -> Iterator[Cell]:
    """Yield each cell, or as many shards of it as are wanted."""
    value = written.entries.get("shards")
    count = 1 if value is None or value.value is None else value.value
    if value is not None and (type(count) is not int or not 1 <= count <= MOST_SHARDS):
        raise value.mistake(
            f"shards is '{printable(value.mark)}'; it has to be a whole number from 1 to {MOST_SHARDS:,}"
        )
    for cell in cells:
        if value is not None and count > 1 and (cell.run.no_cache or cell.processes > 1):
            other = "no_cache" if cell.run.no_cache else "accelerate"
            raise value.mistake(f"shards and {other} exclude each other; give one of them")
        for number in range(1, count + 1):
            shard = Shard(number, count)
            more = {"shard": str(shard)}
            yield cell if count == 1 else replace(cell, run=replace(cell.run, shard=shard), axes={**cell.axes, **more})
