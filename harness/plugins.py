"""Find, load and explain one plugin."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import cause_of, printable, suggestion
from harness.packages import Announced, announced

if TYPE_CHECKING:
    from harness.methods.method import Method

GROUP = "harness"
SLOW_IMPORT_SECONDS = 5.0
# Of a plugin's own folder: what is shown of answers, and the command that shows it.
DECIDES_NOTHING = frozenset({"report", "__main__.py"})


@dataclass(frozen=True)
class Installed:
    """A plugin as package metadata describes it; nothing of it has been imported.

    ``distribution``, ``version`` and ``summary`` are what its package says of itself.
    """

    name: str
    distribution: str
    version: str
    summary: str
    announced: Announced = field(repr=False, compare=False)

    @property
    def meaning(self) -> str:
        """What the plugin says it is: its module's first line, or else its package's summary."""
        return self.announced.first_line() or self.summary

    @property
    def citations(self) -> str:
        """The BibTeX of ``CITATION.bib`` beside its module: the papers behind its methods; empty where there is none."""
        return self.announced.beside("CITATION.bib")

    def __str__(self) -> str:
        return f"plugin '{printable(self.name)}' ({printable(self.distribution)} {printable(self.version)})"


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin: what it offers; ``code_digest`` is over its files that decide an answer, as they were imported."""

    name: str
    distribution: str
    version: str
    methods: dict[str, type[Method]]
    task_folders: tuple[Path, ...]
    code_digest: str


def installed() -> list[Installed]:
    """Return every plugin that package metadata announces, sorted by name, importing none of them."""
    found = [_describe(one) for one in announced(GROUP)]
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


def find(name: str) -> Installed:
    """Return the one installed plugin called ``name``.

    Raises:
        HarnessError: no package announces it, or several do.
    """
    plugins = installed()
    matches = [plugin for plugin in plugins if plugin.name == name]
    if not matches:
        hint = suggestion(name, (plugin.name for plugin in plugins))
        raise HarnessError(f"no plugin is called '{printable(name)}'; {hint} (`harness plugins` lists them)")
    if len(matches) > 1:
        claims = " and ".join(f"{printable(m.distribution)} {printable(m.version)}" for m in matches)
        raise HarnessError(f"plugin name '{printable(name)}' is claimed by {claims}; uninstall all but one of them")
    return matches[0]


def load(name: str) -> Plugin:
    """Import the plugin called ``name``, and no other, and return what it offers.

    Raises:
        HarnessError: it is unknown, claimed twice, cannot be imported, implements a hook that does not exist, returns
            something else than the hooks promise, or offers nothing.
    """
    plugin = find(name)
    module = _import(plugin)
    hooks = _registered(plugin, module)
    with _blaming(plugin, "raised while saying what it offers"):
        method_lists = _called(plugin, hooks.harness_methods)
        folder_lists = _called(plugin, hooks.harness_task_folders)
    methods = _checked_methods(plugin, method_lists)
    folders = _checked_folders(plugin, folder_lists)
    if not methods and not folders:
        unmarked = [name for name in _hooks() if callable(getattr(module, name, None))]
        hint = f"its {unmarked[0]} is not marked with @hookimpl" if unmarked else "it implements no harness hook"
        raise HarnessError(f"{plugin} offers neither methods nor task folders; {hint}")
    return Plugin(plugin.name, plugin.distribution, plugin.version, methods, folders, _code_digest(module))


def task_folders(name: str) -> tuple[Path, ...]:
    """Import the plugin called ``name`` and return its folders with tasks; it is not asked for methods, which may be slow.

    Raises:
        HarnessError: as ``load``, but for what concerns methods.
    """
    plugin = find(name)
    hooks = _registered(plugin, _import(plugin))
    with _blaming(plugin, "raised while saying what it offers"):
        lists = _called(plugin, hooks.harness_task_folders)
    return _checked_folders(plugin, lists)


def load_owners(aggregations: Iterable[str | None]) -> None:
    """Load the installed plugins whose own aggregations these are (``PLUGIN.NAME``), so that their scores can be made again.

    What is not installed, or cannot be loaded, is told where the score is due.
    """
    owners = {name.partition(".")[0] for name in aggregations if name is not None and "." in name}
    for owner in sorted(owners & {plugin.name for plugin in installed()}):
        with suppress(HarnessError):
            load(owner)


def _describe(one: Announced) -> Installed:
    return Installed(one.name, one.distribution or "unknown", one.version or "unknown", one.summary or "", one)


@contextmanager
def _blaming(plugin: Installed, what: str) -> Iterator[None]:
    """Turn whatever a plugin's own code raises, ``SystemExit`` included, into one sentence that names it."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise HarnessError(f"{plugin} {what}: {cause_of(error)}") from error


def _import(plugin: Installed) -> Any:
    notice = f"{plugin} has been importing for {SLOW_IMPORT_SECONDS:g} s"
    timer = threading.Timer(SLOW_IMPORT_SECONDS, lambda: print(notice, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        with _blaming(plugin, "could not be loaded"):
            return plugin.announced.load()
    finally:
        timer.cancel()


def _hooks() -> tuple[str, ...]:
    from harness import hookspecs

    return tuple(name for name in vars(hookspecs) if name.startswith("harness_"))


def _registered(plugin: Installed, module: Any) -> Any:
    import pluggy

    from harness import hookspecs

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    with _blaming(plugin, "does not fit the hooks"):
        manager.register(module, plugin.name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        marked = [n for n in dir(module) if getattr(getattr(module, n), "harness_impl", None) and n not in _hooks()]
        unknown = marked[0] if marked else str(error)
        hint = suggestion(unknown, _hooks())
        raise HarnessError(f"{plugin} implements '{printable(unknown)}', which is no hook; {hint}") from error
    return manager.hook


def _called(plugin: Installed, hook: Any) -> list[Any]:
    """Return the result of each implementation; pluggy leaves out those that return None."""
    results: list[Any] = hook()
    return [*results, *[None] * (len(hook.get_hookimpls()) - len(results))]


def _checked_methods(plugin: Installed, method_lists: list[Any]) -> dict[str, type[Method]]:
    methods: dict[str, type[Method]] = {}
    for method in _flat(plugin, "harness_methods", method_lists):
        name = getattr(method, "name", None)
        is_method = isinstance(method, type) and callable(getattr(method, "apply", None))
        if not is_method or not isinstance(name, str) or not name.strip():
            raise HarnessError(
                f"{plugin} offers {printable(method)!r} as a method, which is no class with `name` and `apply`"
            )
        if name == "baseline":
            raise HarnessError(f"{plugin} calls a method 'baseline', the name of the untouched model; rename it")
        if name in methods:
            first, second = methods[name].__qualname__, method.__qualname__
            raise HarnessError(f"{plugin} uses the method name '{printable(name)}' twice: {first} and {second}")
        methods[name] = method
    for name, method in methods.items():
        if "__dataclass_fields__" not in vars(method):
            raise HarnessError(
                f"{plugin} offers method '{printable(name)}', which is no dataclass, so its options are unknown"
            )
    return methods


def _checked_folders(plugin: Installed, folder_lists: list[Any]) -> tuple[Path, ...]:
    folders = []
    for folder in _flat(plugin, "harness_task_folders", folder_lists):
        if not isinstance(folder, Path) or not folder.is_absolute() or not folder.is_dir():
            raise HarnessError(
                f"{plugin} offers task folder {printable(folder)!r}, which is no absolute path of a folder"
            )
        folders.append(folder)
    return tuple(folders)


def _flat(plugin: Installed, hook: str, values: list[Any]) -> Iterator[Any]:
    for value in values:
        if not isinstance(value, list | tuple):
            raise HarnessError(f"{plugin} returns {type(value).__name__} from {hook}, where a list is due")
        yield from value


def _code_digest(module: Any) -> str:
    """Return the SHA-256 over a plugin's files that decide an answer, so that edited code finds no old results."""
    digest, files = hashlib.sha256(), _source_files(module)
    root = os.path.commonpath([path.parent for path in files]) if files else ""
    for path in files:
        digest.update(path.as_posix().removeprefix(root).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _source_files(module: Any) -> list[Path]:
    """Return the files of a plugin that decide an answer: its report pages and its own command do not."""
    if not isinstance(module, ModuleType):
        module = sys.modules.get(type(module).__module__)
    if getattr(module, "__path__", None):
        found = {path: path.relative_to(top) for top in map(Path, module.__path__) for path in top.rglob("*")}
        deciding = [path for path, below in found.items() if below.parts[0] not in DECIDES_NOTHING]
        return sorted(path for path in deciding if path.suffix in {".py", ".yaml", ".jsonl"} and path.is_file())
    file = getattr(module, "__file__", None)
    return [Path(file)] if file and Path(file).is_file() else []


def duplicate_names(plugins: list[Installed]) -> set[str]:
    """Return the names that more than one package claims."""
    return {name for name, count in Counter(plugin.name for plugin in plugins).items() if count > 1}
