"""What a killed run's finished parts have to agree with, so that the same command goes on from them and no other does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.methods.parts import Parts

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

Item = TypeVar("Item")


def parts_of(method: Any, lm: CausalLM, texts: Any, *, seed: int, workdir: Path) -> Parts:
    """Return the parts of a method's work that are done.

    Args:
        method: its dataclass; files that it names count by what was read of them, see ``texts``.
        lm: whose tensors count.
        texts: what the work is on, as values that JSON knows: token ids and answers.
        seed: the run's.
        workdir: of the method.
    """
    from harness_critical_tokens.scored_pairs import tensors_digest

    options = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    identity = {
        "method": method.name,
        "options": {name: value for name, value in options.items() if not isinstance(value, Path)},
        "seed": seed,
        "model": tensors_digest(lm.model),
        "device": str(lm.device),
        "texts": texts,
    }
    return Parts(workdir, identity)


def portions(items: Sequence[Item], size: int) -> Iterator[tuple[int, Sequence[Item]]]:
    """Yield some items at a time, under the number of the portion."""
    for number, start in enumerate(range(0, len(items), size)):
        yield number, items[start : start + size]
