"""lm-eval's templates, compiled once each."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any


def compile_once() -> None:
    """Have lm-eval keep what it compiled: it compiles a template again for every document, most of the time it takes."""
    from lm_eval import utils

    if utils.apply_template is _rendered:
        return
    utils.apply_template = _rendered


@functools.lru_cache(maxsize=1_000)
def _compiled(template: str) -> Any:
    from lm_eval import utils

    return utils.env.from_string(template)


def _rendered(template: str, doc: Mapping[str, Any]) -> str:
    return str(_compiled(template).render(**doc))
