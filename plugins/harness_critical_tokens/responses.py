"""The responses that a method looked at, kept with the characters of their tokens: what a page shows needs no tokenizer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.folders import write_atomic
from harness.json_lines import write_json_lines

if TYPE_CHECKING:
    from harness_critical_tokens.encoding import Encoded
    from harness_critical_tokens.pairs_file import Pair

RESPONSES, MADE_BY = "responses.jsonl", "made_by.json"
# Of a pair's row, what is known of the error in its rejected response.
KNOWN = ("kind", "style", "critical_span", "first_wrong_char", "propagated_spans", "answer", "rejected_answer")


def write_responses(
    workdir: Path, responses: Sequence[tuple[Pair, str, Encoded]], *, made_by: Mapping[str, Any]
) -> None:
    """Write ``responses.jsonl``, a line for each response, and ``made_by.json``, each whole or not at all.

    Args:
        workdir: of the method.
        responses: pair, side (``chosen`` or ``rejected``) and tokens of each.
        made_by: models and options by name, for people; values that JSON does not know are written as text.
    """
    write_json_lines(workdir / RESPONSES, (_row(pair, side, encoded) for pair, side, encoded in responses))
    write_atomic(workdir / MADE_BY, json.dumps(dict(made_by), indent=1, default=str))


def made_by(method: Any, lm: Any, *, seed: int) -> dict[str, Any]:
    """Return what a page says of its making: the method with its options, the model by name, and the seed.

    Args:
        method: the dataclass of a method.
        lm: what it was applied to.
        seed: the run's.
    """
    config = getattr(getattr(lm, "model", None), "config", None)
    model = getattr(config, "_name_or_path", "") or getattr(lm.tokenizer, "name_or_path", "")
    options = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return {"method": method.name, "model": model, "seed": seed, "options": options}


def _row(pair: Pair, side: str, encoded: Encoded) -> dict[str, Any]:
    known = {name: pair.row[name] for name in KNOWN if name in pair.row} if side == "rejected" else {}
    return {
        "pair": pair.number,
        "side": side,
        "prompt": pair.prompt,
        "text": getattr(pair, side),
        "offsets": encoded.offsets,
        **known,
    }
