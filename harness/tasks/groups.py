"""Groups: their members found before they are loaded, and one name that never stands for two tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable
from harness.tasks.files import Index, tagged

# What alone makes a task that a group writes out in its own file, without a task file of its own.
DATA = ("dataset_path", "custom_dataset", "class", "include")


def members(name: str, found: Index, *, above: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield each name below ``name`` that no file here defines, with the group that names it.

    Raises:
        HarnessError: a group holds itself, a member is neither a name nor a mapping that has one, its file is broken, or
            two files define it.
    """
    if name in above:
        raise HarnessError(f"group '{printable(name)}' holds itself")
    found.check(name)
    entry = found.get(name)
    if entry is not None and entry.kind == "tag":
        for task in tagged(found, name):
            found.check(task)
    if entry is not None and entry.kind == "group":
        yield from _of_config(name, entry.config, found, above=(*above, name))


def _of_config(
    group: str, config: Mapping[str, Any], found: Index, *, above: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    listed = config.get("task")
    if not isinstance(listed, list) or not listed:
        raise HarnessError(f"group '{printable(group)}' names no tasks; list them under 'task'")
    for item in listed:
        name = (
            item if isinstance(item, str) else item.get("group", item.get("task")) if isinstance(item, dict) else None
        )
        if isinstance(item, dict) and "group" in item and name not in found:
            yield from _of_config(str(name), item, found, above=above)
        elif not isinstance(name, str):
            raise HarnessError(
                f"group '{printable(group)}' lists {printable(item)}, which is neither a name nor a mapping with 'task'"
            )
        elif name in found:
            yield from members(name, found, above=above)
        elif not isinstance(item, dict) or not any(key in item for key in DATA):
            found.check_missing(name)
            yield name, group


@contextmanager
def nothing_replaced(*, num_fewshot: int | None) -> Iterator[None]:
    """Refuse, while groups are built, a second task of one name in a group with other settings: lm-eval drops the first."""
    from lm_eval.api.group import Group

    original = Group.add

    def add(self: Any, item: Any) -> None:
        known = self.get(_name(item))
        if known is not None:
            check_same([_Holding(self.name, known), _Holding(self.name, item)], num_fewshot=num_fewshot)
        original(self, item)

    Group.add = add
    try:
        yield
    finally:
        Group.add = original


def check_same(built: Iterable[Any], *, num_fewshot: int | None) -> None:
    """Raise ``HarnessError`` where two of the tasks in ``built``, or below its groups, share a name but not their settings.

    lm-eval keeps scores by name, and asks the last of such tasks for all.

    Args:
        num_fewshot: what the run gives every task that does not fix 0.
    """
    seen: dict[str, tuple[dict[str, Any], str]] = {}
    for part in built:
        for task, place in _leaves(part):
            settings = _settings(task, num_fewshot)
            first, where = seen.setdefault(task.task_name, (settings, place))
            differ = [key for key in {**first, **settings} if first.get(key) != settings.get(key)]
            if not differ:
                continue
            name = printable(task.task_name)
            if "file" in differ:
                raise HarnessError(
                    f"task name '{name}' is used by two tasks that are asked for: {printable(first['file'])} and "
                    f"{printable(settings['file'])}"
                )
            ways = f"{differ[0]}: {_short(first.get(differ[0]))} and {_short(settings.get(differ[0]))}"
            raise HarnessError(
                f"task '{name}' is asked for twice with other settings ({ways}), {where} and {place}; "
                "scores are kept by name: give one a name of its own, in a task file with 'include' and 'task', or ask for "
                "them in two runs"
            )


@dataclass(frozen=True)
class _Holding:
    """A group with one member."""

    name: str
    member: Any

    def __iter__(self) -> Iterator[Any]:
        return iter([self.member])


def _leaves(part: Any, group: str | None = None) -> Iterator[tuple[Any, str]]:
    if isinstance(part, _Holding) or hasattr(part, "get_all_tasks"):
        for child in part:
            yield from _leaves(child, part.name)
    else:
        yield part, "by itself" if group is None else f"in group '{printable(group)}'"


def _settings(task: Any, num_fewshot: int | None) -> dict[str, Any]:
    """Return what a task was built from; functions as their source, the file that it comes from once for all spellings."""
    settings = dict(task.config.to_dict())
    metadata = dict(settings.pop("metadata", None) or {})
    source = metadata.pop("config_source", None)
    settings.pop("task_alias", None)
    own = settings.get("num_fewshot")
    settings["num_fewshot"] = own or 0 if own == 0 or num_fewshot is None else num_fewshot
    file = None if source in (None, "inline") else Path(source).resolve()
    return {**settings, "metadata": metadata, "file": file}


def _name(item: Any) -> str:
    return str(item.task_name if hasattr(item, "task_name") else item.name)


def _short(value: Any) -> str:
    text = printable(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
