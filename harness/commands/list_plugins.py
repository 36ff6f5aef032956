"""``harness plugins``: what is installed, and what one plugin offers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.plugins import Plugin


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plugins",
        help=HELP["plugins"],
        description="List the installed plugins from their files alone, importing none of them. With NAME, import "
        "that one and show its methods, their options and its tasks.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the plugin to explain")
    parser.add_argument("--json", action="store_true", help="print it as JSON, for a program")
    return parser


def execute(args: argparse.Namespace) -> int:
    """List, or explain."""
    from harness import plugins

    if args.json:
        import json

        found = _listed() if args.name is None else _explained(plugins.load(args.name))
        print(json.dumps(found, ensure_ascii=False, indent=1, default=str))
    elif args.name is None:
        _list()
    else:
        _explain(plugins.load(args.name))
    return 0


def _listed() -> list[dict[str, Any]]:
    from harness import plugins

    found = plugins.installed()
    twice = plugins.duplicate_names(found)
    return [
        {
            "name": p.name,
            "distribution": p.distribution,
            "version": p.version,
            "meaning": p.meaning,
            "is_claimed_twice": p.name in twice,
        }
        for p in found
    ]


def _explained(plugin: Plugin) -> dict[str, Any]:
    """Return a plugin with its methods, their options and its tasks, as JSON values.

    Raises:
        HarnessError: options of a method are none.
    """
    from harness.methods import options
    from harness.tasks.files import TaskFolder, index

    methods = [
        {
            "name": method.name,
            "meaning": _first_line(method.__doc__),
            "options": [
                {"name": o.name, "type": o.type, "default": o.default, "meaning": o.meaning}
                for o in options.options(method)
            ],
        }
        for method in plugin.methods.values()
    ]
    entries = index(TaskFolder(plugin.name, path) for path in plugin.task_folders)
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "code_digest": plugin.code_digest,
        "methods": methods,
        "tasks": [{"name": entry.name, "kind": entry.kind} for _, entry in sorted(entries.items())],
    }


def _list() -> None:
    from harness import plugins

    found = plugins.installed()
    twice = plugins.duplicate_names(found)
    if not found:
        print("no plugin is installed")
    rows = [
        (p.name, f"{p.distribution} {p.version}", p.meaning + (" (NAME CLAIMED TWICE)" if p.name in twice else ""))
        for p in found
    ]
    _print_columns(rows)


def _explain(plugin: Plugin) -> None:
    from harness.methods import options

    print(f"{printable(plugin.name)}: {printable(plugin.distribution)} {printable(plugin.version)}")
    for method in plugin.methods.values():
        print(f"\nmethod {printable(method.name)}: {printable(_first_line(method.__doc__))}")
        try:
            offered = options.options(method)
        except HarnessError as error:
            print(f"  {error}")
            continue
        _print_columns([(f"  {o.name}", f"{o.type}, default {o.default}", o.meaning) for o in offered])
    if plugin.task_folders:
        from harness.tasks.files import TaskFolder, index

        entries = index(TaskFolder(plugin.name, path) for path in plugin.task_folders)
        entries.tell()
        print("\ntasks")
        _print_columns([(f"  {entry.name}", entry.kind, "") for _, entry in sorted(entries.items())])


def _print_columns(rows: list[tuple[str, str, str]]) -> None:
    """Print rows of three cells, the last one wrapped to the terminal."""
    import shutil
    import textwrap

    if not rows:
        return
    rows = [(a if a.strip() == a else "  " + printable(a.strip()), printable(b), printable(c)) for a, b, c in rows]
    first, second = (max(len(row[column]) for row in rows) + 2 for column in (0, 1))
    second = min(second, 42)
    width = max(shutil.get_terminal_size((120, 24)).columns - first - second, 30)
    for left, middle, right in rows:
        lines = textwrap.wrap(right, width) or [""]
        gap = "" if len(middle) < second else "\n" + " " * (first + second)
        print(f"{printable(left) if left.strip() == left else left:<{first}}{middle:<{second}}{gap}{lines[0]}".rstrip())
        for line in lines[1:]:
            print(" " * (first + second) + line)


def _first_line(docstring: str | None) -> str:
    lines = (docstring or "").strip().splitlines()
    return lines[0] if lines else ""
