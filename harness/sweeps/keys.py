"""The names that a sweep's file may use: the flags of ``harness eval``, and what is a sweep's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.run.flags import KEY_VALUE, REFUSED, configurable
from harness.sweeps.located import Located

# What is said of each engine, by the names of submitit and Ray: what a value has to be.
ENGINES: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "local": {"workers": (int,), "devices": (list, str, int)},
    "slurm": {
        "partition": (str,),
        "account": (str,),
        "nodes": (int,),
        "gpus_per_node": (int, str),
        "cpus_per_task": (int,),
        "mem_gb": (int, float),
        "timeout_min": (int,),
        "array_parallelism": (int,),
        "setup": (list, str),
        "cluster": (str,),
        "workers": (int,),
        "additional_parameters": (dict,),
    },
    "ray": {
        "address": (str,),
        "num_cpus": (int, float),
        "num_gpus": (int, float),
        "memory_gb": (int, float),
        "workers": (int,),
    },
}
LAUNCH: Mapping[str, tuple[type, ...]] = {"num_processes": (int,)}
# What each key of a sweep's own is for: the schema for editors says it, too.
OWN = {
    "methods": "a list of {plugin, method, method_args ...}: an axis whose values set several flags; lists in them are axes",
    "checkpoints": "folders of a model, such as ckpt/step_{step}; `step` is then an axis: a list, a range, or '*' for all",
    "include": "a list of mappings, each added to the cells that it fits, or else a cell of its own (as in GitHub Actions)",
    "exclude": "a list of mappings: cells that have all of one's values are left out",
    "baseline": "once (default): the untouched model has a cell for each model and task where any method has one; or none",
    "shards": "a whole number: each cell is divided among so many, whose records are merged",
    "accelerate": "num_processes: how many processes `accelerate launch` starts for each cell, each with the whole model",
    "folder": "where paths in this file begin, as seen from the file; by default where the file lies",
    "local": "workers, devices: for `--on local`",
    "slurm": "partition, timeout_min ...: for `--on slurm`, by submitit's names",
    "ray": "address, num_gpus ...: for `--on ray`",
}
# Said once for all cells, in no list.
ONCE = frozenset({"output_path", *OWN})
_NOT_HERE = {
    "with_baseline": "the untouched model is a cell of its own here; say `baseline: once`, which is the default, or none",
    "config": "a sweep's file holds the flags itself",
    "shard": "every shard of a task is a cell here; say shards: 16 for sixteen of them",
    **{name: f"it is not taken: {why}" for name, why in REFUSED.items()},
}


def flags() -> list[str]:
    """Return the flags of ``harness eval`` that a sweep takes."""
    return [name for name in configurable() if name not in _NOT_HERE]


def check_top(
    names: Mapping[str, Located], placeholders: Collection[str], options: Callable[[], Collection[str]]
) -> None:
    """Raise ``HarnessError`` for the first key that means nothing here.

    Args:
        names: the keys of the file with their values.
        placeholders: what ``checkpoints`` has in braces.
        options: returns the options of the methods that the file names.
    """
    known = {*flags(), *OWN, *placeholders}
    for name, value in names.items():
        if name in _NOT_HERE:
            raise value.mistake(f"'{name}': {_NOT_HERE[name]}")
        if name in known:
            continue
        shown = printable(name)
        if name == "step":
            raise value.mistake(
                "'step' is an axis of checkpoints; say where they lie, as checkpoints: ckpt/step_{step}"
            )
        if "." in name and name.split(".")[0] in KEY_VALUE:
            flag, _, option = name.partition(".")
            raise value.mistake(f"'{shown}' is written as {flag}: {{{printable(option)}: ...}} here")
        if name in options():
            raise value.mistake(f"'{shown}' is an option of the method; it belongs below method_args")
        raise value.mistake(
            f"'{shown}' is neither a flag of `harness eval` nor a sweep's own; {suggestion(name, known)}"
        )


@dataclass(frozen=True)
class Names:
    """The names of what cells set, as ``include`` and ``exclude`` may call them.

    Attributes:
        set_names: all that the file sets, dotted where it is of a mapping: ``seed``, ``method_args.scheme``.
        options: returns the options of the methods that the file names.
    """

    set_names: Collection[str]
    options: Callable[[], Collection[str]]

    def full(self, name: str, at: Located) -> str:
        """Return the full name of what is called ``name``: itself, or dotted.

        Raises:
            HarnessError: nothing is called so, or two things are.
        """
        if name in flags() or name in self.set_names:
            return name
        flag, dot, option = name.partition(".")
        if dot and flag in KEY_VALUE and option:
            return name
        found = [full for full in self.set_names if full.partition(".")[2] == name]
        if len(found) > 1:
            raise at.mistake(f"'{printable(name)}' may be {' or '.join(sorted(found))}; write the one that is meant")
        if found:
            return found[0]
        if name in self.options():
            return f"method_args.{name}"
        if name in _NOT_HERE:
            raise at.mistake(f"'{name}': {_NOT_HERE[name]}")
        known = [*flags(), *(full.rpartition(".")[2] for full in self.set_names), *self.options()]
        raise at.mistake(
            f"'{printable(name)}' is neither a flag nor an option of the method; {suggestion(name, known)}"
        )


def short_names(full: Iterable[str]) -> dict[str, str]:
    """Return what each name is called in a table: an option by its own name where nothing else has that."""
    full = list(dict.fromkeys(full))
    last = {name: name.partition(".")[2] or name for name in full}
    taken = [*last.values()]
    return {name: last[name] if taken.count(last[name]) == 1 and (last[name] == name or last[name] not in flags()) else name
            for name in full}  # fmt: skip


def checked_section(name: str, value: Located, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return a mapping of a sweep's own whose keys and kinds of values have been checked.

    Raises:
        HarnessError: it is no mapping, has a key that it does not know, or a value of another kind.
    """
    if value.value is None:
        return {}
    if not isinstance(value.parts, dict):
        raise value.mistake(f"'{name}' takes a mapping, of {', '.join(known)}")
    for key, part in value.entries.items():
        if key not in known:
            more = "; what else sbatch takes goes below additional_parameters" if name == "slurm" else ""
            raise part.mistake(f"'{name}' has no '{printable(key)}'; {suggestion(key, known)}{more}")
        kinds = known[key]
        is_truth = isinstance(part.value, bool)  # which Python takes for a number
        if part.value is not None and (is_truth or not isinstance(part.value, kinds)):
            raise part.mistake(f"'{name}' has '{key}: {printable(part.mark)}', where {_due(kinds)} is due")
        if isinstance(part.value, int | float) and part.value < (
            0 if key in {"num_gpus", "num_cpus", "gpus_per_node"} else 1
        ):
            raise part.mistake(f"'{name}' has '{key}: {part.text}', which is too few")
    return {key: part.value for key, part in value.entries.items() if part.value is not None}


def _due(kinds: tuple[type, ...]) -> str:
    said = {int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return " or ".join(said[kind] for kind in kinds)


def once(name: str, value: Located) -> None:
    """Raise ``HarnessError`` where what is said once for all cells is a list."""
    if isinstance(value.parts, list):
        raise HarnessError(f"{value.where}: '{name}' is one for all cells, no axis; give one value")
