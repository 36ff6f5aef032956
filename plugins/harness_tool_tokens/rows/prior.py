"""Prior vectors: what a tool's row may start from and be held to, made of a text by the same model."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal

import torch

from harness.errors import HarnessError
from harness.methods.embedding_rows import head_rows, head_weight
from harness.methods.hidden_states import Frozen
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

Tensor = torch.Tensor
Prior = Literal["hidden_mean", "hidden_last", "head_rows", "input_rows", "random", "zeros"]
PRIORS = ("hidden_mean", "hidden_last", "head_rows", "input_rows", "random", "zeros")
LENGTHS = ("unit/sqrt(d)", "word_mean", "keep")


def prior_rows(
    lm: CausalLM,
    texts: Sequence[str],
    *,
    prior: Prior,
    centre: bool = False,
    length: str | float = "keep",
    seed: int = 0,
) -> Tensor:
    """Return one row for each text, (K, D) float32 on the CPU.

    ``hidden_mean`` and ``hidden_last`` run the model on the text alone, without begin or end of text, and take what the
    output head would be given, averaged over positions or at the last one. ``head_rows`` and ``input_rows`` average the
    rows that the text's tokens have in the output head or in the input embeddings. ``random`` draws from the uniform
    distribution of ``torch.nn.Linear``, for each text by itself.

    Args:
        centre: subtract the mean over all texts, before the length is set.
        length: ``unit/sqrt(d)``: 1 over the root of the width; ``word_mean``: the mean length of the head's rows;
            ``keep``: as it is; or a number. A row of zeros stays one.
        seed: of ``random``.

    Raises:
        HarnessError: an unknown prior or length, a text without tokens, centring a single text, or a model whose output
            head cannot be found.
    """
    if prior not in PRIORS:
        raise HarnessError(f"prior '{printable(prior)}' is unknown; {suggestion(prior, PRIORS)}")
    wanted = _wanted_length(lm, length)
    rows = _raw(lm, texts, prior, seed)
    if centre and prior != "zeros":
        if len(texts) < 2:
            raise HarnessError("centre subtracts the mean over all tools, and there is one tool; leave centre out")
        rows = rows - rows.mean(0)
    if wanted is None:
        return rows
    lengths = rows.double().norm(dim=-1, keepdim=True)
    return (rows.double() * torch.where(lengths > 0, wanted / lengths, 0.0)).float()


def _raw(lm: CausalLM, texts: Sequence[str], prior: Prior, seed: int) -> Tensor:
    width = Frozen(lm).width
    if prior == "zeros" or not texts:
        return torch.zeros(len(texts), width)
    if prior == "random":
        return _random(texts, width, seed)
    ids = [_token_ids(lm, text) for text in texts]
    if prior == "head_rows":
        return torch.stack([rows.mean(0) for rows in head_rows(lm, list(chain(*ids))).split([len(one) for one in ids])])
    if prior == "input_rows":
        embed = lm.model.get_input_embeddings()
        with torch.no_grad():
            return torch.stack([embed(torch.tensor(one, device=lm.device)).float().mean(0).cpu() for one in ids])
    # Each text in a pass of its own, so that no row depends on what other tools there are.
    states = [Frozen(lm).hidden(one).float() for one in ids]
    return torch.stack([(one.mean(0) if prior == "hidden_mean" else one[-1]).cpu() for one in states])


def _random(texts: Sequence[str], width: int, seed: int) -> Tensor:
    seen: Counter[str] = Counter()
    rows = []
    for text in texts:
        # Two tools of one name start apart, too.
        number = random.Random(f"prior/{seed}/{seen[text]}/{text}").getrandbits(63)
        seen[text] += 1
        rows.append(torch.rand(width, generator=torch.Generator().manual_seed(number)) * 2 - 1)
    return torch.stack(rows) / math.sqrt(width)


def _token_ids(lm: CausalLM, text: str) -> list[int]:
    ids: list[int] = lm.tokenizer.encode(text, add_special_tokens=False)
    if text.startswith(" ") and len(ids) > 1 and not lm.tokenizer.decode(ids[:1]).strip():
        ids = lm.tokenizer.encode(text[1:], add_special_tokens=False)  # which puts a space before every text itself
    if not ids:
        raise HarnessError(f"the prior text '{printable(text)}' of a tool has no tokens; give the tool a name")
    return ids[: lm.max_length]


def _wanted_length(lm: CausalLM, length: str | float) -> float | None:
    if length == "keep":
        return None
    if length == "unit/sqrt(d)":
        return 1 / math.sqrt(Frozen(lm).width)
    if length == "word_mean":
        return float(torch.cat([part.float().norm(dim=-1) for part in head_weight(lm).split(8192)]).mean())
    try:
        wanted = float(length)
    except ValueError:
        wanted = math.nan
    if not 0 <= wanted < math.inf:
        raise HarnessError(
            f"prior_length '{printable(length)}' is no length; give a number, 0 or more, or one of {', '.join(LENGTHS)}"
        )
    return wanted
