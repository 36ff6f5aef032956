"""VLLM: the answers of a ``CausalLM`` by vLLM: the same ids, windows and cuts, its scores and its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import torch

from harness.errors import HarnessError
from harness.models import greedy
from harness.models.causal import CausalLM
from harness.models.guards import refuse_generation
from harness.models.vllm.asking import NO_WEIGHTS
from harness.models.vllm.checking import Recheck
from harness.models.vllm.generating import ended, settings_for
from harness.models.vllm.scoring import Scoring
from harness.progress import bar

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.greedy import Wish
    from harness.models.tree.pieces import Window
    from harness.models.tree.scoring import Scored
    from harness.models.vllm.engine import VllmEngine

# Texts that are written together: what an interrupted run may lose.
TEXTS = 256


class VLLM(CausalLM):
    """A causal language model that vLLM computes (``--model vllm``).

    ``model`` is its shape without weights: configuration, number and names of parameters. What wants to compute with it, or
    to exchange it, is refused.
    """

    tells_answers: ClassVar[bool] = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        engine: Callable[[int], VllmEngine] | VllmEngine,
        share_prefixes: bool = True,
        **settings: Any,
    ) -> None:
        """Wrap an engine.

        Args:
            model: on torch's meta device.
            tokenizer: the model's.
            engine: with the same model, for one token more than ``max_length``; or what starts it, given that number.
            share_prefixes: False computes every request whole.
            settings: as ``CausalLM`` takes them.
        """
        super().__init__(model, tokenizer, share_prefixes=share_prefixes, **settings)
        self.engine = engine(self.max_length + 1) if callable(engine) else engine
        self.settings |= {"engine": self.engine}
        self._reads_cache = share_prefixes
        self.work.reason = None if share_prefixes else "share_prefixes is off"
        self._device = torch.device(self.engine.device)

    def replace(
        self, *, model: PreTrainedModel | None = None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Self:
        """Return this LM with another tokenizer; raises ``HarnessError`` for another model."""
        if model is not None and model is not self.model:
            _refuse()
        return type(self)(self.model, tokenizer or self.tokenizer, **self.settings)

    def forward(self, token_ids: torch.Tensor) -> NoReturn:
        """Refuse: there are no logits to be had."""
        _refuse()

    def sharing(self) -> NoReturn:
        """Refuse: text that acts needs the model itself."""
        _refuse()

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse()

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> NoReturn:
        _refuse()

    def _shared(
        self, windows: Sequence[Window], rest: list[int], owners: Sequence[int], disable_tqdm: bool = False
    ) -> Iterator[tuple[int, Scored]]:
        """Score all windows, context and scored ids; yield them by number."""
        sequences = [(context + scored)[-(self.max_length + 1) :] for context, scored in windows]
        self.check_ids(sequences)
        if not sequences:
            return
        recheck = Recheck(self.engine.dtype, lambda ids: f"'{self.tok_decode(list(ids))[-60:]}'")
        scoring = Scoring(self.engine, work=self.work, recheck=recheck, reads_cache=self._reads_cache)
        with bar(len(windows), "Scoring", unit="request", disable=disable_tqdm) as progress:
            for number, scored in scoring.score(sequences, [len(scored) for _, scored in windows]):
                yield number, scored
                progress.update(1)

    @torch.no_grad()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As ``CausalLM``. Raises ``HarnessError`` besides for a setting that vLLM does not follow."""
        wishes, ids = self.wishes(requests)
        asked = greedy.Wishes(self, self.thinking)
        told = [
            settings_for(wish, asked.applied(request), request, seed=_seed(wish))
            for request, wish in zip(requests, wishes, strict=True)
        ]
        groups = _alike(requests, wishes)
        answers: dict[int, str] = {}
        with bar(len(requests), "Generating", unit="text", disable=disable_tqdm) as progress:
            for start in range(0, len(groups), TEXTS):
                part = groups[start : start + TEXTS]
                for numbers, text in zip(part, self._written(part, requests, wishes, ids, told), strict=True):
                    for number in numbers:
                        answers[number] = text
                        self.tell("generate_until", requests[number].args, text)
                    progress.update(len(numbers))
        return [answers[number] for number in range(len(requests))]

    def _written(
        self,
        groups: Sequence[Sequence[int]],
        requests: Sequence[Instance],
        wishes: Sequence[Wish],
        ids: Mapping[str, list[int]],
        told: Sequence[Mapping[str, Any]],
    ) -> list[str]:
        """Return the text of each group of equal requests, which are named by their numbers."""
        firsts = [numbers[0] for numbers in groups]
        prompts = [ids[requests[n].args[0]][-(self.max_length - wishes[n].limit) :] for n in firsts]
        self.work.need(prompts)
        with self.work.timed("model"):
            written = self.engine.write(prompts, [told[n] for n in firsts])
        texts = []
        for number, prompt, (cached, generated, is_number) in zip(firsts, prompts, written, strict=True):
            if not is_number:
                refuse_generation(requests[number])
            wish, text = wishes[number], requests[number].args[0]
            new = len(generated) - 1
            self.work.requested_tokens += new
            self.work.distinct_tokens += new
            self.work.pushed_tokens += len(prompt) - cached + new
            kept = ended(generated, greedy.Stopper(self, wish, self.thinking))
            texts.append(greedy.finished_text(self, self.thinking, text, kept, wish))
        self.work.forwards += 1
        return texts


def _alike(requests: Sequence[Instance], wishes: Sequence[Wish]) -> list[list[int]]:
    """Return the numbers of requests whose texts are the same one: equal prompts, equal wishes, nothing drawn."""
    groups: dict[Any, list[int]] = {}
    for number, (request, wish) in enumerate(zip(requests, wishes, strict=True)):
        key = number if wish.settings.get("do_sample") else (request.args[0], wish)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _seed(wish: Wish) -> int:
    """Return the seed of a text, drawn from torch's stream where the text is drawn."""
    return int(torch.randint(2**31, ())) if wish.settings.get("do_sample") else 0


def _refuse() -> NoReturn:
    raise HarnessError(NO_WEIGHTS)
