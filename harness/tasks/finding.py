"""Find tasks in the folders of plugins, and load them."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness import plugins
from harness.errors import HarnessError
from harness.folders import cache_folder, write_atomic
from harness.names import printable, suggestion
from harness.progress import say_once
from harness.tasks import whole_set
from harness.tasks.templates import compile_once
from harness.tasks.warned import heard
from harness.timeouts import TimedOut

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

# The plugin that brings the tasks several methods are judged by; every run may use them.
SHARED = "tasks"
MAX_YAML_BYTES = 1_000_000


@dataclass(frozen=True)
class TaskFolder:
    """A folder of task files and the plugin (or flag) it comes from."""

    owner: str
    path: Path


@dataclass(frozen=True)
class TaskEntry:
    """A name that ``--tasks`` takes: a task, a group or a tag; ``path`` is the YAML file that defines it."""

    name: str
    kind: str
    owner: str
    path: Path


@dataclass(frozen=True)
class TaskSet:
    """Tasks ready to be asked, as lm-eval's own objects.

    Attributes:
        notes: by task, sentences that say where its numbers are not what they seem; its records keep them.
    """

    requested: tuple[str, ...]
    built: list[Any]
    tasks: dict[str, Task]
    groups: dict[str, Group]
    manager: TaskManager
    notes: dict[str, list[str]] = field(default_factory=dict)


def folders(plugin: plugins.Plugin | None, include_path: Iterable[str] = ()) -> list[TaskFolder]:
    """Return where a run looks for tasks: its plugin, the shared tasks, the folders the user names.

    Raises:
        HarnessError: a named folder does not exist.
    """
    found = [TaskFolder(plugin.name, path) for path in plugin.task_folders] if plugin else []
    if (plugin is None or plugin.name != SHARED) and any(p.name == SHARED for p in plugins.installed()):
        found += [TaskFolder(SHARED, path) for path in plugins.load(SHARED).task_folders]
    for text in include_path:
        path = Path(text).expanduser().absolute()
        if not path.is_dir():
            raise HarnessError(f"--include_path '{printable(text)}' is no folder")
        found.append(TaskFolder("--include_path", path))
    return found


def index(task_folders: Iterable[TaskFolder]) -> dict[str, TaskEntry]:
    """Return every task, group and tag of the folders by name.

    Nothing the files name is imported or executed.

    Raises:
        HarnessError: a file does not parse, or a task or group name is used twice. lm-eval would skip the first in
            silence, and let the last of the second win.
    """
    entries: dict[str, TaskEntry] = {}
    for folder in task_folders:
        for path in sorted(folder.path.rglob("*.yaml")):
            for name, kind in _names(path):
                entry = TaskEntry(name, kind, folder.owner, path)
                known = entries.setdefault(name, entry)
                if known is not entry and {known.kind, kind} != {"tag"}:
                    raise HarnessError(
                        f"task name '{printable(name)}' is used twice: by {known.owner} in {printable(known.path)} and "
                        f"by {folder.owner} in {printable(path)}"
                    )
    return entries


def load(names: Iterable[str], task_folders: list[TaskFolder], *, metadata: Mapping[str, Any] | None = None) -> TaskSet:
    """Load the named tasks, data included.

    Args:
        names: names, globs or YAML files. lm-eval's own 14,000 names are read only when a name is not found here.
        task_folders: where to look first.
        metadata: passed to each task's own data function, as ``--metadata`` of lm-eval.

    Raises:
        HarnessError: no name, an unknown name, or a task that cannot be loaded.
    """
    ours = index(task_folders)
    requested = _expand(list(names), ours)
    paths = [str(folder.path) for folder in task_folders]
    with heard() as warned:
        from lm_eval.tasks import TaskManager

        whole_set.tell_lm_eval()
        compile_once()
        builtin = [name for name, is_ours in requested if not is_ours]
        _check_known(builtin, _remembered_names())
        manager = TaskManager(include_path=paths, include_defaults=bool(builtin), metadata=dict(metadata or {}))
        if builtin:
            known = frozenset(manager.all_tasks)
            _remember_names(known - ours.keys())
            _check_known(builtin, known)
            requested = [(n, True) for name, _ in requested for n in (sorted(fnmatch.filter(known, name)) or [name])]
        specs = list(dict.fromkeys(name for name, _ in requested))
        built = _without_members([part for spec in specs for part in _built(manager, spec)])
    for text in [*warned.notes, *warned.others]:
        say_once(f"lm-eval warns of {', '.join(map(printable, specs))}: {text}")
    try:
        loaded = manager.load(built)
    except ValueError as error:
        raise HarnessError(f"--tasks asks twice for one task: {printable(error)}") from error
    return TaskSet(tuple(specs), built, loaded["tasks"], loaded.get("groups", {}), manager)


def _names(path: Path) -> list[tuple[str, str]]:
    """Return (name, kind) of what a task file defines; a file that only others include defines nothing."""
    config = read_yaml(path)
    names = [(config["group"], "group")] if isinstance(config.get("group"), str) else []
    if isinstance(config.get("task"), str):
        names.append((config["task"], "task"))
        tags = config.get("tag") or []
        names += [(str(tag), "tag") for tag in (tags if isinstance(tags, list) else [tags])]
    return names


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a task file; ``!function`` values stay text.

    Raises:
        HarnessError: the file is too large, no UTF-8, no valid YAML, or no mapping; line and column are named.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise HarnessError(f"task file {printable(path)} is larger than {MAX_YAML_BYTES:,} bytes")
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise HarnessError(f"task file {printable(path)} does not parse{where}: {printable(problem)}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise HarnessError(f"task file {printable(path)} cannot be read: {printable(error)}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise HarnessError(f"task file {printable(path)} holds a {type(config).__name__}, where a mapping is due")
    return config


class _TaskLoader(yaml.SafeLoader):
    """SafeLoader that takes lm-eval's ``!function`` as the text it is."""


def _as_text(loader: _TaskLoader, node: Any) -> str:
    return str(loader.construct_scalar(node))


_TaskLoader.add_constructor("!function", _as_text)


def _expand(names: list[str], ours: Mapping[str, TaskEntry]) -> list[tuple[str, bool]]:
    """Return each name with whether it is ours, globs over our names expanded."""
    if not names:
        raise HarnessError("no task was named; give some with --tasks (`harness tasks` lists them)")
    expanded: list[tuple[str, bool]] = []
    for name in names:
        if name.endswith((".yaml", ".yml")):
            if not Path(name).is_file():
                raise HarnessError(f"no task file at '{printable(name)}'")
            read_yaml(Path(name))
            expanded.append((name, True))
            continue
        matches = fnmatch.filter(ours, name) if any(c in name for c in "*?[") else [name] if name in ours else []
        expanded += [(match, True) for match in sorted(matches)] or [(name, False)]
    return expanded


def _check_known(names: list[str], known: frozenset[str] | None) -> None:
    """Raise for a name that neither we nor lm-eval have; None when lm-eval's names are not known yet."""
    for name in names if known is not None else ():
        assert known is not None
        if name in known or fnmatch.filter(known, name):
            continue
        elsewhere = _owner_elsewhere(name)
        if elsewhere:
            raise HarnessError(f"task '{printable(name)}' belongs to plugin '{elsewhere}'; add --plugin {elsewhere}")
        ours = {entry for plugin_names in _names_by_plugin().values() for entry in plugin_names}
        hint = suggestion(name, known | ours)
        raise HarnessError(f"no task is called '{printable(name)}'; {hint} (`harness tasks` lists ours)")


def _remembered_names() -> frozenset[str] | None:
    """Return lm-eval's names as an earlier run found them, so that a typo costs no reading of 14,000 files."""
    with suppress(OSError, ValueError):
        return frozenset(json.loads(_names_file().read_text(encoding="utf-8")))
    return None


def _remember_names(names: Iterable[str]) -> None:
    with suppress(OSError):
        write_atomic(_names_file(), json.dumps(sorted(names)))


def _names_file() -> Path:
    return cache_folder() / f"lm-eval-names-{version('lm_eval')}.json"


def _names_by_plugin() -> dict[str, dict[str, TaskEntry]]:
    """Return the tasks of every installed plugin that can be loaded; asked only when a name was not found."""
    found = {}
    for plugin in plugins.installed():
        with suppress(HarnessError):
            loaded = plugins.load(plugin.name)
            found[plugin.name] = index(TaskFolder(plugin.name, path) for path in loaded.task_folders)
    return found


def _owner_elsewhere(name: str) -> str | None:
    """Return the installed plugin that brings task ``name``."""
    return next((plugin for plugin, names in _names_by_plugin().items() if name in names), None)


def _built(manager: TaskManager, spec: str) -> list[Any]:
    """Return the lm-eval objects of one name: a task, a group, or the tasks of a tag."""
    if not spec.endswith((".yaml", ".yml")):
        entry: Any = manager.task_index.get(spec)
        if entry is not None and entry.kind.name == "TAG":
            return [part for tagged in sorted(entry.tags) for part in _built(manager, tagged)]
    try:
        loaded = manager.load([spec])
    except (HarnessError, KeyboardInterrupt, TimedOut):
        raise
    except BaseException as error:  # a task file runs its own code and reads its own data
        clash = re.search(r"multiple values for keyword argument '(\w+)'", str(error))
        if clash and clash[1] in (manager.metadata or {}):
            raise HarnessError(
                f"--metadata {clash[1]} cannot be given: task '{printable(spec)}' sets it itself"
            ) from error
        cause = error.__cause__ if isinstance(error.__cause__, HarnessError) else error
        raise HarnessError(f"task '{printable(spec)}' could not be loaded: {_cause_text(cause)}") from error
    groups = loaded.get("groups", {})
    return [groups[spec]] if spec in groups else list(loaded["tasks"].values())


def _without_members(built: list[Any]) -> list[Any]:
    """Leave out tasks that a requested group brings as well, and what was named twice."""
    inside = {task.task_name for part in built if hasattr(part, "get_all_tasks") for task in part.get_all_tasks()}
    kept: dict[str, Any] = {}
    for part in built:
        is_group = hasattr(part, "get_all_tasks")
        name = part.name if is_group else part.task_name
        if is_group or name not in inside:
            kept.setdefault(name, part)
    return list(kept.values())


def _cause_text(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return first if isinstance(error, HarnessError) else f"{type(error).__name__}: {printable(first)}"
