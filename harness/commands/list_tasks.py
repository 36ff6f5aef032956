"""``harness tasks``: every task a plugin brings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.commands import HELP
from harness.commands.list_plugins import _print_columns
from harness.errors import HarnessError
from harness.names import printable

EPILOG = """\
examples:
  harness tasks                                        # what the plugins here bring
  harness tasks --include_path my-tasks                # what a folder of yours holds
  harness tasks --check langgame_longest               # one document, the requests made of it, what its metrics give
  harness tasks --check mine --include_path my-tasks   # the same for a task that you write
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "tasks",
        help=HELP["tasks"],
        description="List the tasks, groups and tags of all installed plugins, or of one. A plugin that is broken is told, "
        "and the others are listed. lm-eval's own 14,000 names are listed by `lm_eval ls tasks`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plugin", metavar="NAME", help="only this plugin's")
    parser.add_argument(
        "--include_path", "--include-path", type=Path, metavar="DIR", help="only those in a folder of yours"
    )
    parser.add_argument(
        "--check",
        metavar="NAME",
        help="try a task, group, tag or YAML file out: its data, its first document, its requests",
    )
    parser.add_argument("--metadata", nargs="+", metavar="K=V", help="with --check, for the task's own data")
    parser.add_argument("--json", action="store_true", help="print it as JSON, for a program")
    return parser


def execute(args: argparse.Namespace) -> int:
    """List; 1 when a plugin, or a file of it, could not be listed."""
    from harness.tasks.files import TaskFolder, index

    if args.check is not None:
        return _check(args)
    if args.metadata:
        raise HarnessError("--metadata is for the data of a task; name the task with --check NAME")
    if args.plugin and args.include_path:
        raise HarnessError("--plugin and --include_path name two places; give one of them at a time")
    if args.include_path and not args.include_path.is_dir():
        raise HarnessError(f"there is no folder '{printable(args.include_path)}'")
    rows: list[dict[str, str]] = []
    folders, failed = ([("", [args.include_path])], 0) if args.include_path else _folders(args.plugin)
    for name, paths in folders:
        try:
            entries = index(TaskFolder(name or "--include_path", path) for path in paths)
        except HarnessError as error:
            if len(folders) == 1:
                raise
            print(f"harness: {error}", file=sys.stderr)
            failed = 1
            continue
        for problem in entries.problems():
            print(f"harness: {problem}", file=sys.stderr)
            failed = 1
        rows += [{"name": entry.name, "kind": entry.kind, "plugin": name} for entry in entries.values()]
    rows.sort(key=lambda row: (row["name"], row["plugin"]))
    if args.json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        _print_columns([(printable(row["name"]), row["kind"], _needs(row["plugin"])) for row in rows])
    return failed


def _check(args: argparse.Namespace) -> int:
    """Try tasks out and print what came of it."""
    from harness.progress import suit_the_terminal
    from harness.run.flags import key_values
    from harness.run.trying_tasks import try_tasks
    from harness.showing import tried

    suit_the_terminal()
    folders = [str(args.include_path)] if args.include_path else []
    metadata = key_values(args.metadata or [], flag="--metadata")
    found = try_tasks([args.check], plugin=args.plugin, include_path=folders, metadata=metadata)
    if args.json:
        print(json.dumps([tried.as_json(task) for task in found], ensure_ascii=False, indent=1))
        return 0
    for number, task in enumerate(found):
        print(end="\n" if number else "")
        tried.print_tried(task)
    return 0


def _folders(only: str | None) -> tuple[list[tuple[str, Sequence[Path]]], int]:
    """Return the task folders of each plugin, and 1 where one could not be asked, which is told."""
    from harness import plugins

    found: list[tuple[str, Sequence[Path]]] = []
    failed = 0
    for name in [only] if only else sorted({plugin.name for plugin in plugins.installed()}):
        try:
            found.append((name, plugins.task_folders(name)))
        except HarnessError as error:
            if only:
                raise
            print(f"harness: {error}", file=sys.stderr)
            failed = 1
    return found, failed


def _needs(plugin: str) -> str:
    return "" if plugin in ("", "tasks") else f"--plugin {plugin}"
