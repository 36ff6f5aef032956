"""Libraries that only metrics need, imported when the first of them is computed."""

from __future__ import annotations

import importlib
from typing import Any

from harness.errors import HarnessError


def needed(module: str, *, by: str) -> Any:
    """Return an imported module.

    Args:
        module: its dotted name.
        by: the metric that needs it, for people.

    Raises:
        HarnessError: its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        raise HarnessError(
            f"{by} needs the package {package}; pip install 'token-harness[embeddings]' brings it"
        ) from error
