"""Find tasks in the folders of plugins, and load them."""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import plugins
from harness.errors import HarnessError
from harness.folders import cache_folder, write_atomic
from harness.imports import without_collecting
from harness.names import printable, suggestion
from harness.progress import say_once
from harness.tasks import whole_set
from harness.tasks.files import Index, TaskEntry, TaskFolder, copied_from, index, read_whole, tagged
from harness.tasks.groups import check_same, members, nothing_replaced
from harness.tasks.mistakes import of_loading
from harness.tasks.templates import compile_once
from harness.tasks.warned import heard
from harness.timeouts import TimedOut

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

# The plugin that brings the tasks several methods are judged by; every run may use them.
SHARED = "tasks"
MOST_FILES_HERE = 200


@dataclass(frozen=True)
class TaskSet:
    """Tasks ready to be asked, as lm-eval's own objects.

    Attributes:
        notes: by task, sentences that say where its numbers are not what they seem; its records keep them.
    """

    requested: tuple[str, ...]
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
        found += [TaskFolder(SHARED, path) for path in plugins.task_folders(SHARED)]
    for text in include_path:
        path = Path(text).expanduser().absolute()
        if not path.is_dir():
            raise HarnessError(f"--include_path '{printable(text)}' is no folder")
        found.append(TaskFolder("--include_path", path))
    return found


def load(
    names: Iterable[str],
    task_folders: list[TaskFolder],
    *,
    metadata: Mapping[str, Any] | None = None,
    num_fewshot: int | None = None,
) -> TaskSet:
    """Load the named tasks, data included.

    Args:
        names: names, globs or YAML files. lm-eval's own 14,000 names are read only when a name is not found here.
        task_folders: where to look first.
        metadata: passed to each task's own data function, as ``--metadata`` of lm-eval.
        num_fewshot: what the run will give all tasks that do not fix 0: where two of one name are equal with it, they are one.

    Raises:
        HarnessError: no name, an unknown name, a name of two tasks, or a task that cannot be loaded.
    """
    found, requested, builtin, absent = _looked_up(names, task_folders)
    found.tell()
    _check_known(builtin, _remembered_names(), found)
    with heard() as warned:
        with without_collecting():
            from lm_eval.tasks import TaskManager

        whole_set.tell_lm_eval()
        compile_once()
        manager = TaskManager(include_defaults=bool(builtin or absent), metadata=dict(metadata or {}))
        known = frozenset(manager.all_tasks)
        if builtin or absent:
            _remember_names(known)
            _check_known(builtin, known, found)
            _check_members(absent, known, found)
            known |= found.keys()
            requested = [(n, True) for name, _ in requested for n in (sorted(fnmatch.filter(known, name)) or [name])]
        _register(manager, found)
        specs = list(dict.fromkeys(name for name, _ in requested))
        with nothing_replaced(num_fewshot=num_fewshot):
            built = [part for spec in specs for part in _built(manager, spec)]
        check_same(built, num_fewshot=num_fewshot)
    for text in [*warned.notes, *warned.others]:
        say_once(f"lm-eval warns of {', '.join(map(printable, specs))}: {text}")
    tasks = {task.task_name: task for part in built for task in _tasks_of(part)}
    groups = {group.name: group for part in built for group in _groups_of(part)}
    return TaskSet(tuple(specs), tasks, groups, manager)


def check_names(names: Iterable[str], task_folders: list[TaskFolder]) -> list[TaskEntry]:
    """Check that there is a task, group or tag of each name, and return those that the folders define.

    Nothing is loaded. lm-eval is asked for its names only where a name is not found here, and only once: they are remembered.

    Raises:
        HarnessError: no name, an unknown name, a name of two tasks, or a group with a member that there is not.
    """
    found, requested, builtin, absent = _looked_up(names, task_folders)
    if builtin or absent:
        known = _remembered_names()
        if known is None:
            from lm_eval.tasks import TaskManager

            known = frozenset(TaskManager(include_defaults=True).all_tasks)
            _remember_names(known)
        _check_known(builtin, known, found)
        _check_members(absent, known, found)
    return [found[name] for name, is_ours in requested if is_ours]


def _looked_up(
    names: Iterable[str], task_folders: list[TaskFolder]
) -> tuple[Index, list[tuple[str, bool]], list[str], list[tuple[str, str]]]:
    """Return what folders define, the names asked for with whether they do, those and the members that they do not."""
    found = index(task_folders)
    requested = _expand(list(names), found)
    absent = [member for name, is_ours in requested if is_ours for member in members(_entered(found, name), found)]
    _check_beside(absent, found)
    return found, requested, [name for name, is_ours in requested if not is_ours], absent


def _tasks_of(part: Any) -> list[Any]:
    return list(part.get_all_tasks()) if hasattr(part, "get_all_tasks") else [part]


def _groups_of(part: Any) -> list[Any]:
    return [part, *part.get_all_groups()] if hasattr(part, "get_all_groups") else []


def _register(manager: TaskManager, found: Index) -> None:
    """Enter our files into lm-eval's index: it would read all that lies in the folders again, whatever it is."""
    from lm_eval.tasks._index import Entry, Kind

    for name, entry in found.items():
        if entry.kind == "tag":
            manager.task_index[name] = Entry(name, Kind.TAG, None, tags=set(tagged(found, name)))
            continue
        kind = Kind.PY_TASK if "class" in entry.config else Kind.GROUP if entry.kind == "group" else Kind.TASK
        manager.task_index[name] = Entry(entry.name, kind, entry.path, cfg=dict(entry.config))


def _expand(names: list[str], found: Index) -> list[tuple[str, bool]]:
    """Return each name with whether it is ours, globs over our names expanded."""
    if not names:
        raise HarnessError("no task was named; give some with --tasks (`harness tasks` lists them)")
    expanded: list[tuple[str, bool]] = []
    for name in (one for word in names for one in ([word] if word in found else _alternatives(word))):
        if name.endswith((".yaml", ".yml")):
            if not Path(name).is_file():
                raise HarnessError(f"no task file at '{printable(name)}'")
            _enter_file(name, found)
            expanded.append((name, True))
            continue
        matches = fnmatch.filter(found, name) if any(c in name for c in "*?[") else []
        matches = [name] if name in found else sorted(matches)
        for broken in found.broken:
            for match in fnmatch.filter(broken.names, name):
                found.check(match)
        expanded += [(match, True) for match in matches] or [(name, False)]
    return expanded


def _alternatives(name: str) -> list[str]:
    """Return what a name with braces stands for: ``{a,b}_x`` for a_x and b_x."""
    braces = re.search(r"\{([^{}]*,[^{}]*)\}", name)
    if braces is None:
        return [name]
    before, after = name[: braces.start()], name[braces.end() :]
    return list(
        dict.fromkeys(one for part in braces[1].split(",") for one in _alternatives(f"{before}{part.strip()}{after}"))
    )


def _enter_file(name: str, found: Index) -> None:
    """Enter what a file that was asked for by its path defines, under the words it was asked for with."""
    path = Path(name)
    config = read_whole(path)
    kind = "group" if isinstance(config.get("group"), str) else "task"
    if not isinstance(config.get(kind), str):
        raise HarnessError(f"task file {printable(path)} defines neither a 'task' nor a 'group' by a name")
    found[name] = TaskEntry(str(config[kind]), kind, "--tasks", path.resolve(), config)


def _entered(found: Index, name: str) -> str:
    """Return the name that a word of ``--tasks`` stands for, after checking that it stands for one thing."""
    if name in found and found[name].owner != "--tasks":
        found.check(name)
    return name


def _check_members(absent: Iterable[tuple[str, str]], known: Collection[str], found: Index) -> None:
    """Raise for a member of a group that neither we nor lm-eval have."""
    for name, group in absent:
        if name not in known:
            raise HarnessError(f"group '{printable(group)}' names the task '{printable(name)}', which is not found")


def _check_beside(absent: Iterable[tuple[str, str]], found: Index) -> None:
    """Raise for a member of a group given by its file that lies beside it: a file given by its path brings no others."""
    for name, group in absent:
        entry = found.get(group)
        if entry is not None and entry.owner == "--tasks" and name in index([TaskFolder("", entry.path.parent)]):
            raise HarnessError(
                f"group '{printable(entry.name)}' names the task '{printable(name)}', which lies beside it: add --include_path "
                f"{printable(Path(group).parent)}"
            )


def _check_known(names: list[str], known: frozenset[str] | None, found: Index) -> None:
    """Raise for a name that neither we nor lm-eval have; None when lm-eval's names are not known yet."""
    for name in names if known is not None else ():
        assert known is not None
        if name in known or fnmatch.filter(known, name):
            continue
        found.check_missing(name)
        elsewhere = owner_of(name)
        if elsewhere:
            raise HarnessError(f"task '{printable(name)}' belongs to plugin '{elsewhere}'; add --plugin {elsewhere}")
        verb = "matches" if any(c in name for c in "*?[") else "is called"
        if lying := _lying_here(name):
            raise HarnessError(f"no task {verb} '{printable(name)}'; {lying}")
        ours = {entry for plugin_names in _names_by_plugin().values() for entry in plugin_names}
        hint = suggestion(name, known | ours | found.keys())
        raise HarnessError(f"no task {verb} '{printable(name)}'; {hint} (`harness tasks` lists ours)")


def _lying_here(name: str) -> str | None:
    """Return what to do where a file in the working folder, or in one of its folders, defines ``name`` or is called so."""
    files = [*itertools.islice(itertools.chain(Path().glob("*.y*ml"), Path().glob("*/*.y*ml")), MOST_FILES_HERE)]
    for path in sorted(files, key=lambda path: (len(path.parts), copied_from(path) is not None, path.as_posix())):
        try:
            config = read_whole(path)
        except HarnessError as error:
            if path.stem == name:
                return str(error)
            continue
        defined = [str(config[key]) for key in ("group", "task") if isinstance(config.get(key), str)]
        if name not in defined and not (path.stem == name and defined):
            continue
        if path.suffix == ".yml":
            return f"{printable(path)} defines '{printable(defined[0])}': give the file, --tasks {printable(path)}"
        wanted = "it" if name in defined else f"'{printable(defined[0])}'"
        return f"{printable(path)} defines {wanted}: add --include_path {printable(path.parent)}"
    return None


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


def _names_by_plugin() -> dict[str, Index]:
    """Return the tasks of every installed plugin that can be loaded; asked only when a name was not found."""
    found = {}
    for plugin in plugins.installed():
        with suppress(HarnessError):
            found[plugin.name] = index(TaskFolder(plugin.name, path) for path in plugins.task_folders(plugin.name))
    return found


def owner_of(name: str) -> str | None:
    """Return the installed plugin that brings task ``name``."""
    return next((plugin for plugin, names in _names_by_plugin().items() if name in names), None)


def _built(manager: TaskManager, spec: str) -> list[Any]:
    """Return the lm-eval objects of one name: a task, a group, or the tasks of a tag."""
    entry: Any = manager.task_index.get(spec)
    if entry is not None and entry.kind.name == "TAG":
        return [part for task in sorted(entry.tags) for part in _built(manager, task)]
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
        told = None if isinstance(cause, HarnessError) else of_loading(error)
        if told and entry is not None and entry.yaml_path and entry.kind.name != "GROUP":
            told = f"{told} ({printable(entry.yaml_path)})"
        raise HarnessError(f"task '{printable(spec)}' could not be loaded: {told or _cause_text(cause)}") from error
    groups = loaded.get("groups", {})
    name = spec if entry is None else entry.name
    return [groups[name]] if name in groups else list(loaded["tasks"].values())


def _cause_text(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return first if isinstance(error, HarnessError) else f"{type(error).__name__}: {printable(first)}"
