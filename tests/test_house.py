"""The house: who may import whom, what plugins may import, whose private names are whose; how long files are, and their names."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Top to bottom. A module imports from its own place and from the floors below it; places on one floor do not know each
# other. The longest name that fits a module is its place. Imports for types count, too: a type that is needed below
# lies too high.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("benchmarks", "docs"),
    # The last two are the plugins that tests bring, as somebody else would write them.
    (
        "harness_stochastok",
        "harness_tool_tokens",
        "harness_critical_tokens",
        "harness_contextual_embeddings",
        "harness_tasks",
        "harness_temperature",
        "harness_contrastive",
    ),
    ("harness.cli",),
    ("harness",),
    ("harness.commands",),
    ("harness.viewing",),
    ("harness.showing", "harness.exports"),
    ("harness.sweeps",),
    ("harness.run", "harness.run.reproducing", "harness.run.exporting"),
    ("harness.run.named_code",),
    ("harness.run.evaluating", "harness.run.foreseeing", "harness.run.trying_tasks"),
    ("harness.run.sharding",),
    ("harness.run.asking",),
    ("harness.run.results", "harness.run.baselines"),
    ("harness.run.applying", "harness.run.claims", "harness.run.untouched", "harness.run.estimating"),
    ("harness.run.identity", "harness.run.lm_eval_calls"),
    ("harness.run.preparing",),
    ("harness.run.questions", "harness.run.restoring", "harness.run.folder", "harness.run.flags", "harness.run.shards"),
    ("harness.run.chat", "harness.run.groups", "harness.run.metrics"),
    (
        "harness.run.artefacts",
        "harness.run.bootstrap",
        "harness.run.changes",
        "harness.run.environment",
        "harness.run.journal",
        "harness.run.summary",
        "harness.run.surroundings",
        "harness.run.run",
    ),
    ("harness.run.shard",),
    ("harness.tasks.finding",),
    ("harness.plugins",),
    ("harness.hookspecs",),
    ("harness.tasks",),
    ("harness.publishing",),
    ("harness.verifying.checking",),
    ("harness.methods", "harness.comparing", "harness.board"),
    ("harness.verifying",),
    ("harness.models", "harness.records"),
    ("harness.foreign",),
    ("harness.json_lines",),
    (
        "harness.folders",
        "harness.pages",
        "harness.imports",
        "harness.threads",
        "harness.timeouts",
        "harness.own_code",
        "harness.isolation",
    ),
    ("harness.generation_settings",),
    ("harness.arguments",),
    (
        "harness.cores",
        "harness.packages",
        "harness.plain_files",
        "harness.metrics",
        "harness.progress",
        "harness.removal",
        "harness.requests",
        "harness.seeds",
    ),
    ("harness.redaction",),
    ("harness.control_groups", "harness.names", "harness.secret_shapes"),
    ("harness.errors",),
)

# What a plugin, ours or anybody's, may import of the harness.
PUBLIC = (
    "harness",
    "harness.methods",
    "harness.metrics",
    "harness.tasks",
    "harness.requests",
    "harness.seeds",
    "harness.json_lines",
    "harness.pages",
    "harness.names",
    "harness.folders",
    "harness.isolation",
    "harness.progress",
    "harness.errors",
    "harness.models.causal",
    "harness.models.chat",
    "harness.models.tokenizer_only",
    "harness.models.acting",
    "harness.models.head",
    "harness.models.layers",
    "harness.models.lm",
    "harness.models.refused",
    "harness.models.spans",
    "harness.models.token_bytes",
    "harness.models.finding",
    "harness.models.loading",
    "harness.models.embedding",
    "harness.models.encoder",
    "harness.models.encoder_loading",
    "harness.models.encoding",
    "harness.models.for_mteb",
    "harness.models.identity",
    "harness.models.pooled",
    "harness.models.prefixes",
    "harness.models.greedy",
    "harness.models.guards",
    "harness.records.answers",
    "harness.records.samples",
    "harness.records.sources",
    "harness.records.aggregation",
    "harness.commands.own",
)
PLUGINS = FLOORS[1]
MOST_LINES = 400


@dataclass(frozen=True)
class Import:
    """One arrow: ``line`` of the file of ``source`` imports ``target``."""

    source: str
    target: str
    line: int

    @property
    def place(self) -> str:
        """File and line, for people."""
        return f"{modules()[self.source].relative_to(ROOT)}:{self.line}"


@functools.cache
def modules() -> dict[str, Path]:
    """Return every module that the house has, by its dotted name."""
    found = {}
    plugins = (path for folder in ("plugins", "tasks", "tests/*_plugin") for path in sorted(ROOT.glob(f"{folder}/*")))
    for folder in ("harness", *plugins):
        top = ROOT / folder
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(top.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    for folder in ("benchmarks", "docs"):
        found |= {f"{folder}.{path.stem}": path for path in sorted((ROOT / folder).glob("*.py"))}
    return found


@functools.cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@functools.cache
def imports() -> tuple[Import, ...]:
    """Return every import of a module of the house by another, those inside functions and for types alone included."""
    return tuple(Import(name, target, line) for name in modules() for target, line in _imported(name) if target != name)


def _imported(module: str) -> Iterator[tuple[str, int]]:
    known = modules()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield (whole if whole in known else node.module), node.lineno


def is_within(module: str, place: str) -> bool:
    """Return whether a module is, or lies below, a place."""
    return module == place or module.startswith(f"{place}.")


def place_of(module: str) -> tuple[int, str]:
    """Return the floor (0 is the top) and the place of a module."""
    if module == "harness":
        return next((number, "harness") for number, floor in enumerate(FLOORS) if "harness" in floor)
    fitting = [(len(place), number, place) for number, floor in enumerate(FLOORS) for place in floor]
    fitting = [found for found in fitting if found[2] != "harness" and is_within(module, found[2])]
    assert fitting, f"{module} has no floor: give its room a line in FLOORS of tests/test_house.py"
    _, number, place = max(fitting)
    return number, place


def upwards(arrows: Iterable[Import]) -> list[str]:
    """Return a sentence for each import against the floors."""
    said = []
    for arrow in arrows:
        (own, room), (other, wanted) = place_of(arrow.source), place_of(arrow.target)
        if other > own or wanted == room:
            continue
        where = f"a floor below {room}" if other < own else f"below both {room} and {wanted}, which are neighbours"
        said.append(f"{arrow.place} imports {arrow.target}: what it needs of that belongs {where}")
    return said


def circles(arrows: Iterable[Import]) -> list[str]:
    """Return a sentence for each circle of modules, found by taking away what imports nothing that is left."""
    left: dict[str, set[str]] = {}
    for arrow in arrows:
        left.setdefault(arrow.source, set()).add(arrow.target)
    while True:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        if not free:
            break
        left = {name: targets - free for name, targets in left.items() if name not in free}
    inside = [name for name in left if name in _reached(name, left)]
    return [f"{name} imports itself by way of {', '.join(sorted(left[name] & set(inside)))}" for name in sorted(inside)]


def _reached(start: str, targets: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [*targets[start]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += targets.get(name, ())
    return seen


def foreign_plugins(arrows: Iterable[Import]) -> list[str]:
    """Return a sentence for each import of a plugin by another, or by the host."""
    return [
        f"{arrow.place} imports {arrow.target}: what two share moves down into harness"
        for arrow in arrows
        for plugin in PLUGINS
        if is_within(arrow.target, plugin) and arrow.source.split(".")[0] not in {plugin, "benchmarks", "docs"}
    ]


def not_public(arrows: Iterable[Import]) -> list[str]:
    """Return a sentence for each import by a plugin of what plugins may not build on."""
    return [
        f"{arrow.place} imports {arrow.target}, which is no public room (PUBLIC in tests/test_house.py, and the second page "
        "of docs/writing-a-plugin.md)"
        for arrow in arrows
        if arrow.source.split(".")[0] in PLUGINS
        and is_within(arrow.target, "harness")
        and not any(
            arrow.target == place or (place != "harness" and is_within(arrow.target, place)) for place in PUBLIC
        )
    ]


def strange_private_names(names: Iterable[str]) -> list[str]:
    """Return a sentence for each use of a private name that only modules of another folder define."""
    home: dict[str, set[Path]] = {}
    for name, path in modules().items():
        for private in _defined(tree(name)):
            home.setdefault(private, set()).add(path.parent)
    said = []
    for name in names:
        path = modules()[name]
        for private, line in _used(tree(name)):
            owners = home.get(private, set())
            if owners and path.parent not in owners:
                owner = sorted(str(folder.relative_to(ROOT)) for folder in owners)[0]
                said.append(f"{path.relative_to(ROOT)}:{line} uses {private} of {owner}: give it a public name there")
    return said


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _defined(module: ast.Module) -> Iterator[str]:
    """Yield private functions, classes, attributes of self and of classes, and module constants."""
    for node in ast.walk(module):
        name = ""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            name = node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        if _is_private(name):
            yield name


def _used(module: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_self(node.value):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
            yield from ((alias.name, node.lineno) for alias in node.names if _is_private(alias.name))


def _is_self(node: ast.expr) -> bool:
    is_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return is_super or (isinstance(node, ast.Name) and node.id in {"self", "cls"})


def too_long(paths: Iterable[Path]) -> list[str]:
    """Return a sentence for each file over ``MOST_LINES``."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    return [
        f"{path.relative_to(ROOT)} has {length} lines, {MOST_LINES} at most: split it by idea"
        for path, length in lengths.items()
        if length > MOST_LINES
    ]


def files_of_tests() -> list[Path]:
    """Return the Python files of the tests that pytest imports by their name alone, which are not those of a package."""
    found = (path for path in sorted((ROOT / "tests").rglob("*.py")) if path.name != "conftest.py")
    return [path for path in found if not any(part.endswith("_plugin") for part in path.relative_to(ROOT).parts)]


def of_one_name(paths: Iterable[Path]) -> list[str]:
    """Return a sentence for each file that has the name of another one, in whatever folder."""
    first: dict[str, Path] = {}
    return [
        f"{path.relative_to(ROOT)} has the name of {other.relative_to(ROOT)}: pytest imports by name, so give it another"
        for path in paths
        if (other := first.setdefault(path.name, path)) != path
    ]


# What takes a file away, puts another in its place, or empties it; what makes a file that goes by itself.
REMOVING = frozenset({
    "unlink", "rmtree", "rmdir", "removedirs", "rename", "renames", "truncate", "ftruncate", "write_text", "write_bytes",
    "TemporaryDirectory", "NamedTemporaryFile",
})  # fmt: skip
OF_MODULES = {"os": {"remove", "replace"}, "shutil": {"move"}}
# Where that may be: who, what, and why it takes nothing that is not ours.
MAY_REMOVE = {
    ("harness.removal", "unlink"): "the one place",
    ("harness.removal", "rmtree"): "the one place",
    ("harness.removal", "rmdir"): "the one place; takes empty folders alone",
    ("harness.removal", "replace"): "the one place; refuses links",
    ("harness.folders", "ftruncate"): "takes off what it has just added, or the torn end that it has set aside",
    ("harness.publishing.files", "truncate"): "a buffer in memory",
    ("harness.publishing.hub", "TemporaryDirectory"): "in the system's folder for such",
    ("harness.run.reproducing", "TemporaryDirectory"): "in the system's folder for such",
    ("harness.run.environment", "write_text"): "tells the kernel to forget a peak",
}


def removals(names: Iterable[str]) -> list[str]:
    """Return a sentence for each call that may remove a file, in another place than those of ``MAY_REMOVE``."""
    return [
        f"{modules()[name].relative_to(ROOT)}:{line} calls {called}: files go by harness/removal.py alone"
        for name in names
        for called, line in _removing(tree(name))
        if (name, called) not in MAY_REMOVE
    ]


def _removing(module: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module in OF_MODULES:
            names = REMOVING | OF_MODULES[node.module]
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in names)
        elif isinstance(node, ast.Call) and (name := _removes(node)):
            yield name, node.lineno


def _removes(call: ast.Call) -> str:
    """Return the name of what is called if it may take a file away, else nothing."""
    if isinstance(call.func, ast.Name):
        name, owner = call.func.id, ""
    elif isinstance(call.func, ast.Attribute):
        name, owner = call.func.attr, getattr(call.func.value, "id", "")
    else:
        return ""
    # Text, dates and dataclasses are replaced by two words or by name; a path by one.
    is_of_path = name == "replace" and len(call.args) == 1 and not call.keywords
    words = [*call.args, *(keyword.value for keyword in call.keywords)]
    is_written = name == "open" and any(_is_writing(word) for word in words)
    return name if name in REMOVING | OF_MODULES.get(owner, set()) or is_of_path or is_written else ""


def _is_of_plugins(module: str) -> bool:
    return (ROOT / "plugins") in modules()[module].parents or (ROOT / "tasks") in modules()[module].parents


def _is_writing(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and bool(re.fullmatch("[rbt+]*[wax][rbt+]*", node.value))
    )


def test_no_module_imports_upwards_or_from_a_neighbour() -> None:
    assert upwards(imports()) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(imports()) == []


def test_no_plugin_is_imported_by_another_or_by_the_host() -> None:
    assert foreign_plugins(imports()) == []


def test_plugins_import_public_rooms_alone() -> None:
    assert not_public(imports()) == []


def test_private_names_stay_in_their_folder() -> None:
    assert strange_private_names(modules()) == []


def test_no_file_is_too_long() -> None:
    assert too_long(modules().values()) == []


def test_no_two_files_of_tests_have_one_name() -> None:
    """Pytest cannot collect two of one name, and of two helpers only the first is ever imported."""
    assert of_one_name(files_of_tests()) == []


def test_two_files_of_one_name_are_told_with_both_places() -> None:
    """Folders do not tell them apart."""
    [sentence] = of_one_name([ROOT / "tests/board/test_page.py", ROOT / "tests/viewing/test_page.py"])
    assert "tests/viewing/test_page.py has the name of tests/board/test_page.py" in sentence


def test_files_go_by_one_function_alone() -> None:
    shipped = [name for name in modules() if is_within(name, "harness") or _is_of_plugins(name)]
    assert removals(shipped) == []


@pytest.mark.parametrize(
    "code",
    ["path.unlink()", "shutil.rmtree(path)", "os.remove(path)", "os.replace(a, b)", "a.replace(b)", "a.rename(b)",
     "os.ftruncate(1, 2)", "open(path, 'w')", "path.open(mode='wb')", "path.write_text('')", "from os import remove",
     "with tempfile.TemporaryDirectory(): pass"],
)  # fmt: skip
def test_each_way_to_lose_a_file_is_seen(code: str) -> None:
    assert list(_removing(ast.parse(code)))


def test_text_and_dates_may_be_replaced() -> None:
    assert not list(_removing(ast.parse("a.replace('w', 'x'); day.replace(tzinfo=None); seen.remove(3); open(path)")))


@pytest.mark.parametrize(
    ("arrow", "check", "words"),
    [
        (Import("harness.records.record", "harness.run.run", 3), upwards, "record.py:3 imports harness.run.run"),
        (Import("harness.methods.options", "harness.board.board", 5), upwards, "below both"),
        (Import("harness_stochastok.method", "harness_tool_tokens.method", 7), foreign_plugins, "moves down"),
        (Import("harness_stochastok.method", "harness.run.applying", 9), not_public, "no public room"),
        (Import("harness_stochastok.method", "harness.models.tree.trie", 9), not_public, "no public room"),
    ],
)
def test_a_breach_is_told_with_file_line_and_where_it_belongs(arrow: Import, check: object, words: str) -> None:
    assert callable(check)
    [sentence] = check([arrow])
    assert words in sentence and arrow.place in sentence


def test_a_circle_is_found_and_what_only_leads_to_it_is_not_blamed() -> None:
    names: Sequence[str] = ("harness.names", "harness.errors", "harness.seeds")
    pairs = [(names[0], names[1]), (names[1], names[0]), (names[2], names[0])]
    said = circles([Import(source, target, 1) for source, target in pairs])
    assert [sentence.split()[0] for sentence in said] == ["harness.errors", "harness.names"]
