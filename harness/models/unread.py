"""LMs whose weights were not read: asked like any other, they count what would enter the model, and answer nothing of use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from harness.errors import HarnessError
from harness.models import adapter_files
from harness.models.causal import CausalLM
from harness.models.embedding import Asked, Vector, answered
from harness.models.encoder import Encoder
from harness.models.encoder_loading import limited_to, way_of
from harness.models.loading import check_places
from harness.models.source import ModelSource, first_line
from harness.models.tokenizer_only import TokenizerOnly
from harness.models.tree.pieces import Window
from harness.models.tree.scoring import Scored
from harness.models.tree.work import Work
from harness.names import printable
from harness.progress import quiet

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel


class Counting(Protocol):
    """What an unread LM has beside its contract.

    Attributes:
        work: ``requested_tokens`` and ``distinct_tokens`` of prompts and continuations, as an answered run counts them.
        new_tokens: of generated texts, at most.
    """

    work: Work
    new_tokens: int


class UnreadCausal(CausalLM):
    """A ``CausalLM`` on a model without numbers: its ids, windows, cuts and refusals are those of an answered run."""

    new_tokens = 0

    def start_counting(self) -> None:
        """Begin again at 0."""
        super().start_counting()
        self.new_tokens = 0

    def _shared(
        self, windows: Sequence[Window], rest: list[int], owners: Sequence[int], disable_tqdm: bool = False
    ) -> Iterator[tuple[int, Scored]]:
        sequences = [(context + scored)[-(self.max_length + 1) :] for context, scored in windows]
        self.check_ids(sequences)
        self.work.need([sequence[:-1] for sequence in sequences])
        for number, (_, scored) in enumerate(windows):
            yield number, Scored(np.zeros(len(scored)), np.zeros(len(scored), dtype=bool))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Count prompts, cut as they will be, and the tokens that texts may have at most."""
        wishes, ids = self.wishes(requests)
        is_causal = self.backend == "causal"
        self.work.need(
            [
                ids[request.args[0]][-(self.max_length - (wish.limit if is_causal else 0)) :]
                for request, wish in zip(requests, wishes, strict=True)
            ]
        )
        self.new_tokens += sum(wish.limit for wish in wishes)
        return [""] * len(requests)


class UnreadEncoder(Encoder):
    """An ``Encoder`` on a model without numbers."""

    new_tokens = 0

    def embed(self, requests: list[Instance]) -> list[Vector]:
        """Count the ids of each distinct text; empty ones are refused as they will be."""

        def counted(wanted: list[Asked]) -> Iterator[tuple[int, Any]]:
            self.work.need([row.ids for row in self.rows(wanted)])
            yield from ((number, np.ones(1, dtype=np.float32)) for number in range(len(wanted)))

        return answered(requests, counted, empty=self.settings["empty"], tell=self.tell)


class UnreadTokenizer(TokenizerOnly):
    """A ``TokenizerOnly``, which has no model that tokens could enter."""

    new_tokens = 0

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.work = Work()


def unread_causal(source: ModelSource) -> UnreadCausal:
    """Return the LM of a source whose ``check`` has passed. Raises ``HarnessError`` as ``CausalLM`` does."""
    model = _blank(source)
    if source.peft and Path(source.peft).is_dir():
        adapter_files.check_layers(Path(source.peft), dict(model.named_modules()), name=source.name)
    return UnreadCausal(model, source.load_tokenizer(), **source.lm_args)


def unread_encoder(source: ModelSource) -> UnreadEncoder:
    """Return the encoder of a source whose ``check`` has passed."""
    tokenizer, model = source.load_tokenizer(), _blank(source, headless=True)
    way = limited_to(way_of(source), model, tokenizer)
    given = {name: source.lm_args[name] for name in ("empty", "add_bos_token") if name in source.lm_args}
    return UnreadEncoder(model, tokenizer, way=way, share_prefixes=False, **given)


def unread_tokenizer(source: ModelSource) -> UnreadTokenizer:
    """Return the tokenizer of a source alone."""
    return UnreadTokenizer(source.load_tokenizer())


def _blank(source: ModelSource, *, headless: bool = False) -> PreTrainedModel:
    """Return the architecture of a model, on torch's device of tensors without numbers."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForTextEncoding

    if headless:
        kind = AutoModelForTextEncoding if source.is_encoder_decoder else AutoModel
    else:
        kind = AutoModelForSeq2SeqLM if source.is_encoder_decoder else AutoModelForCausalLM
    settings: dict[str, Any] = {"trust_remote_code": source.trust_remote_code}
    if source.dtype != "auto":
        settings["dtype"] = getattr(torch, source.dtype)
    if source.attn_implementation:
        settings["attn_implementation"] = source.attn_implementation
    try:
        with torch.device("meta"), quiet("transformers"):
            model: PreTrainedModel = kind.from_config(source.config, **settings)
    except Exception as error:  # a config of any shape makes transformers raise anything
        raise HarnessError(f"could not load model '{printable(source.name)}': {first_line(error)}") from error
    check_places(model, source)
    return model.eval()
