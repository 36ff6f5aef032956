"""``harness tasks``: every task a plugin brings."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from harness.commands import HELP
from harness.commands.list_plugins import _print_columns
from harness.errors import HarnessError
from harness.names import printable


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "tasks",
        help=HELP["tasks"],
        description="List the tasks, groups and tags of all installed plugins, or of one. A plugin that is broken is told, "
        "and the others are listed. lm-eval's own 14,000 names are listed by `lm_eval ls tasks`.",
    )
    parser.add_argument("--plugin", metavar="NAME", help="only this plugin's")
    return parser


def execute(args: argparse.Namespace) -> int:
    """List; 1 when a plugin, or a file of it, could not be listed."""
    from harness import plugins
    from harness.tasks.files import TaskFolder, index

    names = [args.plugin] if args.plugin else sorted({plugin.name for plugin in plugins.installed()})
    rows: list[tuple[str, str, str]] = []
    failed = 0
    for name in names:
        try:
            plugin = plugins.load(name)
            entries = index(TaskFolder(plugin.name, path) for path in plugin.task_folders)
        except HarnessError as error:
            if args.plugin:
                raise
            print(f"harness: {error}", file=sys.stderr)
            failed = 1
            continue
        for problem in entries.problems():
            print(f"harness: {problem}", file=sys.stderr)
            failed = 1
        rows += [
            (printable(entry.name), entry.kind, f"--plugin {name}" if name != "tasks" else "")
            for entry in entries.values()
        ]
    _print_columns(sorted(rows))
    return failed
