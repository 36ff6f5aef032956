"""Task files: read safely, and indexed by the names they define; what is no task file stops nothing."""

from __future__ import annotations

import functools
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError
from harness.names import printable
from harness.progress import say_once

MAX_YAML_BYTES = 1_000_000
MAX_YAML_VALUES = 1_000_000
# A file larger than this is parsed only where one of the words stands in it that a task file needs.
LARGE_BYTES = 50_000
TOLD_BY_NAME = 3
# Folders that lm-eval leaves out as well.
LEFT_OUT = {"__pycache__", ".ipynb_checkpoints"}
# How editors and file managers call what they put beside a file: t copy 2, t (copy), t - Copy (1), t.bak, .#t, ._t, Copy of t.
_COPY = re.compile(
    r"^(?:\.#|\._|\.~|#|~\$?|copy of )(?P<of>.+)$"
    r"|^(?P<of_end>.+?)(?: ?(?:\(\d+\)|\((?:\w+ )?cop(?:y|ie)(?: \d+)?\))"
    r"|(?: - | |[-_.])(?:copy|kopie|copie|copia)(?: ?\(?\d+\)?)?"
    r"|[-_.](?:bak|backup|orig|old|tmp|swp|checkpoint)|~)$",
    re.IGNORECASE,
)


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
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Broken:
    """A file that cannot be read as a task file.

    Attributes:
        problem: a sentence, with file and line.
        names: what stands anywhere where a name of a task may stand.
        own: what stands where a task file has its own, but for the mistake in it.
    """

    path: Path
    problem: str
    names: frozenset[str]
    own: frozenset[str]


class Index(dict[str, TaskEntry]):
    """Every task, group and tag by name, and what was found beside them.

    Attributes:
        broken: files that are no task files.
        doubled: of names that several files define, all that do.
    """

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self.broken: list[Broken] = []
        self.doubled: dict[str, list[TaskEntry]] = {}

    def check(self, name: str) -> None:
        """Raise ``HarnessError`` where ``name`` is not told apart: two files define it, or one does that does not parse."""
        for broken in self.broken:
            if name in broken.own and copied_from(broken.path) is None:
                raise HarnessError(broken.problem)
        if name in self.doubled:
            raise HarnessError(self._used_twice(name))

    def check_missing(self, name: str) -> None:
        """Raise ``HarnessError`` where a name that nothing defines stands in a broken file, or is that file's."""
        for broken in self.broken:
            if name in broken.names or name == broken.path.stem:
                raise HarnessError(broken.problem)

    def problems(self) -> list[str]:
        """Return a sentence for each file that is no task file, and for each name that several define."""
        return [*(broken.problem for broken in self.broken), *map(self._used_twice, self.doubled)]

    def _used_twice(self, name: str) -> str:
        first, second = self.doubled[name][:2]
        return (
            f"task name '{printable(name)}' is used twice: by {first.owner} in {printable(first.path)} and by "
            f"{second.owner} in {printable(second.path)}"
        )

    def tell(self) -> None:
        """Say which files were left out, once."""
        if self.broken:
            named = "; ".join(broken.problem for broken in self.broken[:TOLD_BY_NAME])
            more = f"; and {len(self.broken) - TOLD_BY_NAME:,} more" if len(self.broken) > TOLD_BY_NAME else ""
            them = "it" if len(self.broken) == 1 else "them"
            say_once(f"left out, since nothing that is asked for needs {them}: {named}{more}")


def index(task_folders: Iterable[TaskFolder]) -> Index:
    """Return every task, group and tag of the folders by name. Nothing the files name is imported or executed."""
    found, inherited = Index(), []
    defined: dict[str, list[TaskEntry]] = {}
    seen: set[Path] = set()
    for folder in task_folders:
        for path in _yaml_files(folder.path):
            resolved = path.resolve()
            if resolved in seen:
                continue
            seen.add(resolved)
            try:
                own, config = _read_names(path)
            except HarnessError as error:
                found.broken.append(_broken(path, str(error)))
                continue
            entries = [TaskEntry(name, kind, folder.owner, path, config) for name, kind in _names(config)]
            for entry in entries:
                if entry.kind == "tag" or entry.name in (own.get("task"), own.get("group")):
                    defined.setdefault(entry.name, []).append(entry)
                else:
                    inherited.append(entry)
    for name, same in defined.items():
        _enter(found, name, same)
    for entry in inherited:  # a file that takes its name over with ``include`` gives way to the one that has it
        found.setdefault(entry.name, entry)
    return found


def tagged(found: Index, tag: str) -> list[str]:
    """Return the tasks that bear ``tag``."""
    return sorted(name for name, entry in found.items() if entry.kind == "task" and tag in _tags(entry.config))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a task file; ``!function`` values stay text.

    Raises:
        HarnessError: the file is too large, no valid YAML, grows without bounds, or holds no mapping; line and column are
            named.
    """
    shown = f"task file {printable(path)}"
    try:
        content = _content(path)
        config, grows = (_parsed_once if len(content) <= LARGE_BYTES else _parsed)(content)
        if grows:
            raise HarnessError(f"{shown} has aliases that grow to more than {MAX_YAML_VALUES:,} values")
        config = deepcopy(config)  # the caller's own
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise HarnessError(f"{shown} does not parse{where}: {printable(problem)}") from error
    except OSError as error:
        raise HarnessError(f"{shown} cannot be read: {printable(error.strerror or error)}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise HarnessError(f"{shown} cannot be read: {printable(error)}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise HarnessError(f"{shown} holds a {type(config).__name__}, where a mapping is due")
    return config


def read_whole(path: Path, *, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the mapping in a task file with those of the files it includes; its own keys win.

    Raises:
        HarnessError: it or one of them cannot be read, or includes itself.
    """
    config = read_yaml(path)
    if "include" not in config:
        return config
    included = config.pop("include")
    merged: dict[str, Any] = {}
    for other in included if isinstance(included, list) else [included]:
        if not isinstance(other, str):
            raise HarnessError(f"task file {printable(path)} includes {printable(other)}, which is no file name")
        target = path.parent / other
        if target.resolve() in {path.resolve(), *within}:
            raise HarnessError(f"task file {printable(path)} includes {printable(target)}, which includes it")
        if not target.exists():
            raise HarnessError(f"task file {printable(path)} includes {printable(target)}, which is not there")
        content = read_whole(target, within=(*within, path.resolve()))
        content.pop("task_list", None)
        merged |= content
    return merged | config


def _yaml_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: path.as_posix()):
        if not LEFT_OUT & set(path.relative_to(folder).parts):
            yield path


def _read_names(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a file holds, and what it holds with the files that it includes."""
    with suppress(OSError):
        if MAX_YAML_BYTES >= path.stat().st_size > LARGE_BYTES and path.is_file():
            content = path.read_bytes().replace(b"\0", b"")
            if not any(word in content for word in (b"task", b"group", b"include")):
                return {}, {}
    own = read_yaml(path)
    return own, read_whole(path) if "include" in own else own


def _names(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, kind) of what a task file defines; a file that only others include defines nothing."""
    names = [(config["group"], "group")] if isinstance(config.get("group"), str) else []
    if isinstance(config.get("task"), str):
        names.append((config["task"], "task"))
        names += [(tag, "tag") for tag in _tags(config)]
    return names


def _tags(config: Mapping[str, Any]) -> list[str]:
    tags = config.get("tag") or []
    return [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]


def _enter(found: Index, name: str, entries: list[TaskEntry]) -> None:
    """Enter the one that ``name`` stands for; copies of it are left out, and several that differ are kept apart."""
    names = [entry for entry in entries if entry.kind != "tag"]
    others = [
        entry for entry in names if not any(_is_copy(entry, original) for original in names if original is not entry)
    ]
    found[name] = (others or entries)[0]
    same_file = {entry.path for entry in entries} == {found[name].path}  # a task may bear its own name as a tag
    if len(others) > 1 or (others and len(names) < len(entries) and not same_file):
        found.doubled[name] = [*others, *(entry for entry in entries if entry.kind == "tag")][:2]
    for copy in names:
        if copy not in others:
            problem = f"{printable(copy.path)} is a copy of the file that defines '{printable(name)}'"
            found.broken.append(Broken(copy.path, problem, frozenset(), frozenset()))


def _is_copy(entry: TaskEntry, original: TaskEntry) -> bool:
    """Return whether ``entry`` is what an editor left beside ``original``, or the same once more under another name."""
    if entry.path.parent != original.path.parent or entry.kind != original.kind:
        return False
    if copied_from(entry.path) == original.path.stem.lower():
        return True
    return entry.config == original.config and copied_from(original.path) is None and entry.path > original.path


def copied_from(path: Path) -> str | None:
    """Return the stem of the file that ``path`` is an editor's copy of, by its name; None for another name."""
    match = _COPY.match(path.stem)
    return None if match is None else (match["of"] or match["of_end"]).removesuffix(".yaml").lower()


def _broken(path: Path, problem: str) -> Broken:
    text = ""
    with suppress(HarnessError, OSError):
        text = _content(path).decode("utf-8", "replace")
    names = _defined(text, r"[ \t]*(?:-[ \t]+)?")
    is_list = text.lstrip().startswith("-") or " holds a " in problem
    return Broken(path, problem, frozenset(names), frozenset() if is_list else frozenset(_defined(text, "")))


def _defined(text: str, before: str) -> set[str]:
    """Return the names that stand where a task file has its own; ``before`` is a pattern of what may stand before them."""
    lines = re.finditer(rf"^{before}[\"']?(?:task|group|tag)[\"']?[ \t]*:[ \t]*([^#\n]+)", text, re.MULTILINE)
    parts = (part.strip().strip("\"'") for line in lines for part in line[1].strip().strip("[]").split(","))
    return {part for part in parts if part}


def _content(path: Path) -> bytes:
    """Return what a file holds; a pipe is never opened, since that would wait for a writer."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise OSError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no ordinary file")
    if status.st_size > MAX_YAML_BYTES:
        raise HarnessError(f"task file {printable(path)} is larger than {MAX_YAML_BYTES:,} bytes")
    return path.read_bytes()


def _parsed(content: bytes) -> tuple[Any, bool]:
    """Return what a text of YAML holds, and whether its aliases grow it without bounds, where nothing of it is made."""
    loader = _TaskLoader(content)
    try:
        node = loader.get_single_node()
        if node is not None and b"*" in content and _values(node) > MAX_YAML_VALUES:
            return None, True
        return (None if node is None else loader.construct_document(node)), False
    finally:
        loader.dispose()


# A file that many include is read by each of them, and every run of a process indexes the same files.
_parsed_once = functools.lru_cache(maxsize=512)(_parsed)


def _values(root: yaml.Node) -> int:
    """Return how many values ``root`` gives with each alias written out."""
    counts: dict[int, int | None] = {}
    waiting = [root]
    while waiting:
        node = waiting[-1]
        children = _children(node)
        if id(node) not in counts:
            counts[id(node)] = None  # until its children are counted: whoever meets it before is inside it
            waiting += [child for child in children if id(child) not in counts]
            if any(counts.get(id(child), 0) is None for child in children):
                return MAX_YAML_VALUES + 1
            continue
        waiting.pop()
        if counts[id(node)] is None:
            counts[id(node)] = min(1 + sum(counts[id(child)] or 0 for child in children), MAX_YAML_VALUES + 1)
    return counts[id(root)] or 0


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


class _TaskLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader that takes lm-eval's ``!function`` as the text it is."""


def _as_text(loader: _TaskLoader, node: Any) -> str:
    return str(loader.construct_scalar(node))


_TaskLoader.add_constructor("!function", _as_text)
