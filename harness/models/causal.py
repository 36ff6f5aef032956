"""CausalLM: lm-eval's ``HFLM`` for a model we hold, with replacement of its parts and guards on every answer."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import LogitsProcessor, LogitsProcessorList

from harness.errors import HarnessError
from harness.models.identity import has_separate_head
from harness.models.tokenizer_only import encode_all
from harness.names import printable
from harness.progress import bar, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class CausalLM(HFLM):
    """A causal language model with its tokenizer.

    Gives lm-eval's own answers, log-probabilities always from float32. A score that is NaN or infinite stops the run
    and names the request. ``truncated`` counts, by task, the requests that were cut to fit the context.
    """

    answers: ClassVar[frozenset[str]] = frozenset(
        {"loglikelihood", "loglikelihood_rolling", "generate_until", "token_loglikelihoods", "tokenize"}
    )

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int | str = 8, **settings: Any
    ) -> None:
        """Wrap ``model`` and ``tokenizer`` as they are.

        Args:
            model: on its device already.
            tokenizer: its vocabulary fits the model's embeddings.
            batch_size: rows per forward pass, or ``auto`` as in lm-eval.
            settings: ``max_length``, ``prefix_token_id``, ``add_bos_token`` and the like, as ``HFLM`` takes them.

        Raises:
            HarnessError: a separate output head was tied to the embeddings again by the wrapping.
        """
        self.settings = {"batch_size": batch_size, **settings}
        self.truncated: Counter[str] = Counter()
        self._is_too_long: list[bool] = []
        self._request_of: dict[str, Instance] = {}
        self._rows: list[Instance | None] = []
        is_separate = has_separate_head(model)
        if is_separate:
            # HFLM calls tie_weights(), which would undo the head a method made.
            model.config.tie_word_embeddings = False
        with quiet("lm_eval.models.huggingface"):
            super().__init__(pretrained=model, tokenizer=tokenizer, softmax_dtype="float32", **self.settings)
        if is_separate and not has_separate_head(self.model):
            raise HarnessError(
                f"{type(model).__name__} tied its output head to the input embeddings again, which loses the method's "
                "head; the model class has to honour config.tie_word_embeddings=False"
            )

    def replace(
        self, *, model: PreTrainedModel | None = None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Self:
        """Return this LM with another model or tokenizer, the same batch size, length and prefix."""
        return type(self)(model or self.model, tokenizer or self.tokenizer, **self.settings)

    def tokenize(self, requests: list[Instance]) -> list[list[int]]:
        """Return the ids of each request's text, without special tokens. Requests: ``(text,)``."""
        return encode_all(self.tokenizer, [request.args[0] for request in requests])

    @torch.no_grad()
    def token_loglikelihoods(self, requests: list[Instance]) -> list[list[float]]:
        """Return the log-probability of each given id after those before it, the first after end-of-text.

        Args:
            requests: ``arguments`` is ``(text, token_ids)``; the text is for readers of the sample file.

        Returns:
            One list per request, in nats, as long as its ids. Ids beyond the context are scored in disjoint windows.

        Raises:
            HarnessError: a score is not finite.
        """
        windows: list[tuple[int, list[int], list[int]]] = []
        for number, request in enumerate(requests):
            for context, scored in map(make_disjoint_window, self._windows(list(request.args[1]))):
                windows.append((number, context, scored))
        answers: list[list[list[float]]] = [[[] for _ in self._windows(list(r.args[1]))] for r in requests]
        places = _places(windows)
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i][1]) - len(windows[i][2]))
        size = self.settings["batch_size"] if isinstance(self.settings["batch_size"], int) else 8
        with bar(len(windows), "Scoring tokens", unit="text") as progress:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                for index, scores in zip(batch, self._score([windows[i] for i in batch]), strict=True):
                    number = windows[index][0]
                    _check_finite(sum(scores), requests[number])
                    answers[number][places[index]] = scores
                progress.update(len(batch))
        return [[score for scores in parts for score in scores] for parts in answers]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As ``HFLM``. Raises ``HarnessError`` naming the request when a score is not finite."""
        for request in requests:
            if not request.args[1]:
                raise HarnessError(f"{_named(request)} asks for the score of an empty continuation; fix the task")
        self._is_too_long = []
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        for request, (score, _) in zip(requests, answers, strict=True):
            _check_finite(score, request)
        # Empty where a method scores by a step of its own: then it knows what it cuts.
        for request, is_too_long in zip(requests, self._is_too_long, strict=False):
            self.truncated[request.task_name] += is_too_long
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """As ``HFLM``. Raises ``HarnessError`` naming the request when a score is not finite."""
        answers: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        for request, score in zip(requests, answers, strict=True):
            _check_finite(score, request)
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As ``HFLM``. Raises ``HarnessError`` when a task leaves no room for a prompt or logits are NaN."""
        for request in requests:
            wanted = int(request.args[1].get("max_gen_toks") or self.max_gen_toks)
            if wanted >= self.max_length:
                raise HarnessError(
                    f"{_named(request)} asks for {wanted} new tokens, but the model's context holds {self.max_length}; "
                    "lower it with --gen_kwargs max_gen_toks=..."
                )
            self._request_of[request.args[0]] = request
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def tok_batch_encode(self, strings: list[str], *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``HFLM``, without its warning per batch: texts that are cut are counted instead."""
        with quiet("lm_eval.models.huggingface"):
            ids, mask = super().tok_batch_encode(strings, *args, **kwargs)
        self._rows = [self._request_of.get(text) for text in strings]
        limit = kwargs.get("left_truncate_len")
        if limit and ids.shape[1] >= limit:
            for text, request in zip(strings, self._rows, strict=True):
                self.truncated[request.task_name if request else ""] += len(self.tok_encode(text)) > limit
        return ids, mask

    def _loglikelihood_tokens(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
        self._is_too_long = [len(context) + len(scored) > self.max_length + 1 for _, context, scored in requests]
        with quiet("lm_eval.models.huggingface"):
            return super()._loglikelihood_tokens(requests, *args, **kwargs)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> Any:
        guards = LogitsProcessorList([*generation_kwargs.pop("logits_processor", []), _RefuseNaN(self._rows)])
        return super()._model_generate(context, max_length, stop, logits_processor=guards, **generation_kwargs)

    def _windows(self, token_ids: list[int]) -> Iterator[tuple[list[int], list[int]]]:
        windows: Iterator[tuple[list[int], list[int]]] = get_rolling_token_windows(
            token_list=token_ids, prefix_token=self._end_of_text(), max_seq_len=self.max_length, context_len=1
        )
        return windows

    def _end_of_text(self) -> int:
        """Return the id documents end with: what stands before the first token of a new text."""
        end = self.tokenizer.eos_token_id
        return int(self.prefix_token_id if end is None else end)

    def _score(self, windows: list[tuple[int, list[int], list[int]]]) -> list[list[float]]:
        """Score windows of (B, T) ids padded on the right, which causal attention does not see."""
        rows = [context + scored for _, context, scored in windows]
        longest = max(len(row) for row in rows) - 1
        inputs = torch.zeros((len(rows), longest), dtype=torch.long)
        for number, row in enumerate(rows):
            inputs[number, : len(row) - 1] = torch.tensor(row[:-1])
        logits = self._model_call(inputs.to(self.device))
        scores = []
        for number, (_, context, scored) in enumerate(windows):
            span = slice(len(context) - 1, len(context) - 1 + len(scored))
            logprobs = torch.log_softmax(logits[number, span].float(), dim=-1)
            scores.append(logprobs.gather(1, torch.tensor(scored, device=logprobs.device)[:, None])[:, 0].tolist())
        return scores


class _RefuseNaN(LogitsProcessor):
    """Stop a generation whose logits are NaN: greedy search would silently take token 0."""

    def __init__(self, rows: list[Instance | None]) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        is_broken = torch.isnan(scores).any(dim=-1)
        if is_broken.any():
            row = int(is_broken.nonzero()[0])
            request = self.rows[row] if row < len(self.rows) else None
            name = _named(request) if request is not None else "a request"
            raise HarnessError(f"{name} got NaN logits while generating; try --model_args dtype=float32")
        return scores


def _check_finite(score: float, request: Instance) -> None:
    if not math.isfinite(score):
        raise HarnessError(
            f"{_named(request)} got the score {score}: the model's output is broken, and no score of it would mean "
            "anything; try --model_args dtype=float32"
        )


def _named(request: Instance) -> str:
    text = printable(str(request.args[0])[-60:])
    return f"request {request.idx} of document {request.doc_id} in task '{printable(request.task_name)}' (...{text})"


def _places(windows: list[tuple[int, list[int], list[int]]]) -> list[int]:
    """Return, for each window, which window of its request it is."""
    seen: dict[int, int] = {}
    places = []
    for number, _, _ in windows:
        places.append(seen.get(number, 0))
        seen[number] = places[-1] + 1
    return places
