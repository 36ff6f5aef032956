"""The two hooks a plugin may implement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from harness.methods.method import Method

PROJECT = "harness"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def harness_methods() -> list[type[Method]]:  # type: ignore[empty-body]
    """Return the methods this plugin offers.

    Since 0.1. Called once, after ``--plugin`` chose the plugin. A plugin that only brings tasks leaves this out: the
    model is then evaluated as it is, as method ``baseline``.

    Returns:
        Method classes, each with a ``name`` unique within the plugin. Of several, the user picks with ``--method``.
    """


@hookspec
def harness_task_folders() -> list[Path]:  # type: ignore[empty-body]
    """Return the absolute paths of the folders that hold this plugin's task files.

    Since 0.1. Called once, after ``--plugin`` chose the plugin, or when ``harness tasks`` lists what there is.

    Returns:
        Absolute paths of existing folders; they are searched recursively for ``*.yaml``.
    """
