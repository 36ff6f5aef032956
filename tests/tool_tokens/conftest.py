"""A plain LM, the method applied to it or to another one, and tools that are tokens of plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answered import load

from harness_tool_tokens.method import ToolTokens


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """The tiny model alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


PLAN_TOOLS = [
    {"key": text, "name": text.strip("[]<>").lower(), "text": text, "description": "does or is a thing"}
    for text in ("[WALK]", "[OPEN]", "[END]", "<attic>", "<letter>")
]


@pytest.fixture
def plan_tools(tmp_path: Path) -> str:
    """A file of tools that are tokens of plans."""
    path = tmp_path / "plan_tools.json"
    path.write_text(json.dumps(PLAN_TOOLS), encoding="utf-8")
    return str(path)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and no data folder."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_TOOL_DATA", raising=False)


@pytest.fixture
def plain(tiny_model: Path) -> Any:
    """The tiny model's LM, loaded as a user would."""
    return load(tiny_model)


@pytest.fixture
def apply(tmp_path: Path, plain: Any) -> Callable[..., Any]:
    """Return a function that applies the method with options to the tiny model, or to another LM; ``workdir`` is on the LM."""

    def applying(lm: Any = None, *, seed: int = 0, **options: Any) -> Any:
        workdir = tmp_path / f"work-{len(list(tmp_path.glob('work-*')))}"
        workdir.mkdir()
        made: Any = ToolTokens(**options).apply(lm or plain, seed=seed, workdir=workdir)
        made.workdir = workdir
        return made

    return applying
