"""CausalLM: lm-eval's ``HFLM`` for a model we hold: its answers in a fraction of the time, guards on every answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from lm_eval.models.huggingface import HFLM
from transformers import LogitsProcessorList, StoppingCriteriaList

from harness.errors import HarnessError
from harness.models import batches, encoding, greedy
from harness.models.guards import RefuseNaN, check_finite, check_ids, check_pair, named
from harness.models.head import head_kept_apart
from harness.models.lm import CAUSAL, Answering, is_as
from harness.models.plain_scores import score_plainly
from harness.models.processes import OneOfSeveral
from harness.models.scored_windows import ScoresWindows
from harness.models.thinking import Thinking
from harness.models.tokenizer_only import encode_all
from harness.models.tree.memory import Budget
from harness.models.tree.pieces import Window, in_whole, windows_of
from harness.models.tree.prompts import NotANumber, Prompt
from harness.models.tree.sharing import Sharing
from harness.models.tree.work import Work
from harness.models.virtual_tokens import VirtualTokens
from harness.progress import bar, process_count, quiet

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# What answers pass through on their way to the caller.
SCORES = frozenset({"loglikelihood", "loglikelihood_rolling", "token_loglikelihoods"})
STEPS = ("_loglikelihood_tokens", "_score", "_score_plainly", "_generate_greedily", "_generate_plainly")


class CausalLM(OneOfSeveral, ScoresWindows, VirtualTokens, Answering):
    """A causal language model with its tokenizer.

    Gives lm-eval's own answers, log-probabilities always from float32. Requests share what they have in common where
    the model allows that (see ``docs/scoring.md``); ``work`` counts what it took. A score that is NaN or infinite
    stops the run and names the request. ``truncated`` counts, by task, the requests that were cut to fit the context.

    A subclass that overrides a step (``_model_call``, ``_model_generate``) is answered lm-eval's way, with that step.
    So is a model with parts that are not the libraries' own, unless the subclass sets ``is_plain_causal``: in every
    such part, what becomes of a token depends on that token alone.

    A subclass with a way of its own to an answer sets ``tells_answers`` when it calls ``self.tell`` for each answer as soon
    as it has it: an interrupted run then loses none.
    """

    answers: ClassVar[frozenset[str]] = CAUSAL.answers
    is_plain_causal: ClassVar[bool] = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | str = "auto",
        share_prefixes: bool = True,
        **settings: Any,
    ) -> None:
        """Wrap ``model`` and ``tokenizer`` as they are.

        Args:
            model: on its device already.
            tokenizer: its vocabulary fits the model's embeddings.
            batch_size: ``auto``: as many tokens at a time as are fast and fit. N: no more than N requests' worth.
            share_prefixes: False scores every request on its own, as lm-eval does.
            settings: ``max_length``, ``prefix_token_id``, ``add_bos_token`` and the like, as ``HFLM`` takes them.

        Raises:
            HarnessError: a separate output head was tied to the embeddings again by the wrapping.
        """
        self.settings = {"batch_size": batch_size, "share_prefixes": share_prefixes, **settings}
        self.truncated: Counter[str] = Counter()
        self.generation: dict[str, dict[str, Any]] = {}
        self.work: Work = Work()
        self.writing: Any = None
        with head_kept_apart(model), quiet("lm_eval.models.huggingface"):
            super().__init__(pretrained=model, tokenizer=tokenizer, softmax_dtype="float32", batch_size=1, **settings)
        encoding.pad_within(self.tokenizer, len(self.model.get_input_embeddings().weight))
        self.thinking = Thinking.of(self)
        if process_count() > 1:
            self.join_processes()
        self._budget = Budget(self.model, rows=batch_size if isinstance(batch_size, int) else None)
        self._sharing = Sharing(
            self.model,
            partial(HFLM._model_call, self),
            work=self.work,
            budget=self._budget,
            autocast=self.autocast,
            is_declared=self.is_plain_causal,
            refusal=None if share_prefixes else "share_prefixes is off",
        )

    def replace(
        self, *, model: PreTrainedModel | None = None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Self:
        """Return this LM with another model or tokenizer, the same batch size, length and prefix."""
        return type(self)(model or self.model, tokenizer or self.tokenizer, **self.settings)

    def tells(self, kind: str) -> bool:
        """Return whether no step of the way to these answers is a subclass's own, or it tells of its answers itself."""
        return self.tells_answers or (kind in CausalLM.answers and is_as(self, CausalLM, kind, *STEPS))

    def leaves_out(self, kind: str) -> bool:
        """Return whether these answers are scores, in batches of which some may be left out, and no step is a subclass's own."""
        return kind in SCORES and is_as(self, CausalLM, kind, *STEPS, "_shared")

    def start_counting(self) -> None:
        """Forget the work, the truncated requests and the settings of texts of earlier evaluations."""
        self.truncated.clear()
        self.generation.clear()
        self.work.clear()

    def count_truncated(self, kind: str, requests: list[Instance]) -> None:
        """Count requests in ``truncated`` that are answered from what an interrupted run left."""
        if kind == "loglikelihood":
            self._pairs(requests)
        elif kind == "generate_until":
            self.wishes(requests)

    @torch.no_grad()
    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, T, V) of ids (B, T), padded on the right where rows are shorter; ``work`` counts it."""
        logits: torch.Tensor = self._model_call(token_ids.to(self.device))
        return logits

    def autocast(self) -> Any:
        """Return the context in which this LM's model runs: mixed precision where that was asked for."""
        dtype = self.mixed_precision_dtype
        return torch.autocast(device_type=self.device.type, dtype=dtype, enabled=dtype is not None)

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
        if self.backend == "seq2seq":
            raise HarnessError(
                "an encoder-decoder has no log-probabilities of a text's own tokens, which this task asks for"
            )
        self.check_ids([request.args[1] for request in requests], requests)
        windows = [self._windows(list(request.args[1]), self._end_of_text()) for request in requests]
        flat, owners = _flat(windows)
        answers: list[Any] = [None] * len(requests)

        def finish(number: int, parts: list[list[float]]) -> None:
            answers[number] = [value for part in parts for value in part]
            self.tell("token_loglikelihoods", requests[number].args, answers[number])

        take, rest = in_whole(windows, finish), list[int]()
        for number, scored in self._shared(flat, rest, owners):
            take(number, scored.logprobs.tolist())
        plain = score_plainly(self.forward, [flat[n] for n in rest], budget=self._budget, device=self.device)
        for number, scores in zip(rest, plain, strict=True):
            take(number, scores)
        self._check_finite([None if scores is None else sum(scores) for scores in answers], requests)
        return answers

    @torch.no_grad()
    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As ``HFLM``. Raises ``HarnessError`` naming the request when it cannot be scored or a score is not finite."""
        for request in requests:
            if not request.args[1]:
                raise HarnessError(f"{named(request)} asks for the score of an empty continuation; fix the task")
        if self.enable_thinking:
            raise HarnessError("enable_thinking suits tasks that generate, not log-likelihoods; leave it out")
        pairs = self._pairs(requests)
        answers = self._loglikelihood_tokens(
            [(request.args, *pair) for request, pair in zip(requests, pairs, strict=True)], disable_tqdm=disable_tqdm
        )
        self._check_finite([answer and answer[0] for answer in answers], requests)
        return answers

    @torch.no_grad()
    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """As ``HFLM``. Raises ``HarnessError`` naming the request when a score is not finite."""
        with self.work.timed("tokenizing"):
            ids = encoding.encode_texts(self, [request.args[0] for request in requests])
        self.check_ids([ids[request.args[0]] for request in requests], requests)
        windows = [self._windows(ids[request.args[0]], self.prefix_token_id) for request in requests]
        answers: list[Any] = [None] * len(requests)

        def finish(number: int, parts: list[tuple[float, bool]]) -> None:
            answers[number] = sum(value for value, _ in parts)
            self.tell("loglikelihood_rolling", requests[number].args, answers[number])

        flat, owners = _flat(windows)
        self._score([(None, *window) for window in flat], in_whole(windows, finish), disable_tqdm, owners)
        self._check_finite(answers, requests)
        return answers

    @torch.no_grad()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As ``HFLM``, with the settings as ``harness.generation_settings`` has them, and thinking left out of answers.

        Raises:
            HarnessError: a setting is not taken, a task leaves no room for a prompt, or logits are NaN.
        """
        wishes, ids = self.wishes(requests)
        answers: dict[int, str] = {}
        if is_as(self, CausalLM, "_model_generate") and greedy.is_own(self.model):
            answers |= self._generate_greedily(requests, wishes, ids, disable_tqdm)
        rest = [number for number in range(len(requests)) if number not in answers]
        answers |= self._generate_plainly(requests, rest, wishes, ids, disable_tqdm)
        return [answers[number] for number in range(len(requests))]

    def wishes(self, requests: Sequence[Instance]) -> tuple[list[greedy.Wish], dict[str, list[int]]]:
        """Return how the text of each request is to be written, and the ids of their prompts.

        Prompts that will be cut to leave room for the answer are counted, what decides the texts is noted in ``generation``.
        Raises ``HarnessError`` naming the request when a setting is not taken, or leaves no room for the prompt.
        """
        with self.work.timed("tokenizing"):
            ids = encoding.encode_prompts(self, [request.args[0] for request in requests])
        self.check_ids([ids[request.args[0]] for request in requests], requests)
        asked = greedy.Wishes(self, self.thinking)
        return [asked.counted(request, len(ids[request.args[0]])) for request in requests], ids

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As ``HFLM``; requests are ``((context, continuation) or None, context ids, continuation ids)``.

        What is not due is answered with None.
        """
        answers: list[Any] = [None] * len(requests)
        self._score(requests, answers.__setitem__, disable_tqdm)
        return answers

    def _generate_greedily(
        self, requests: list[Instance], wishes: Sequence[greedy.Wish], ids: Mapping[str, list[int]], disable_tqdm: bool
    ) -> dict[int, str]:
        """Return the texts of those requests that are plain greedy search and may share, by number."""
        sharing = self.sharing()
        asked = greedy.prompts_of(self, self.thinking, requests, wishes, ids)
        prompts = [prompt for prompt, _, _ in asked]
        answers: dict[int, str] = {}
        if not prompts:
            return answers
        with bar(len(requests), "Generating", unit="text", disable=disable_tqdm or self._is_plain) as progress:

            def done(place: int, prompt: Prompt, generated: list[int]) -> None:
                _, wish, numbers = asked[place]
                answer = greedy.finished_text(self, self.thinking, requests[numbers[0]].args[0], generated, wish)
                for number in numbers:
                    self.tell("generate_until", requests[number].args, answer)
                answers.update(dict.fromkeys(numbers, answer))
                progress.update(len(numbers))

            with suppress(NotANumber):  # asked without sharing, the broken request will be named
                sharing.generate(prompts, done)
        return answers

    def _generate_plainly(
        self,
        requests: list[Instance],
        numbers: Sequence[int],
        wishes: Sequence[greedy.Wish],
        ids: Mapping[str, list[int]],
        disable_tqdm: bool,
    ) -> dict[int, str]:
        """Return the texts of requests by number, generated by transformers."""
        self.work.need([ids[requests[number].args[0]] for number in numbers])
        answers: dict[int, str] = {}
        with bar(len(numbers), "Generating", unit="text", disable=disable_tqdm or not numbers) as progress:

            def take(number: int, generated: list[int]) -> None:
                text = requests[number].args[0]
                answers[number] = greedy.finished_text(self, self.thinking, text, generated, wishes[number])
                self.tell("generate_until", requests[number].args, answers[number])
                progress.update(1)

            batches.write(self, requests, numbers, wishes, ids, take)
        return answers

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.work.went_plainly(0, forwards=1, pushed=inps.numel())
        with self.work.timed("model"):
            return super()._model_call(inps, *args, **kwargs)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> Any:
        wish, requests = self.writing  # noted by ``batches``
        guards = LogitsProcessorList([*generation_kwargs.pop("logits_processor", []), RefuseNaN(requests)])
        stopper = greedy.Stopper(self, replace(wish, until=tuple(stop)), self.thinking)
        start = context.shape[1] if self.backend == "causal" else 1
        with self.work.timed("model"), self.autocast():
            out = self.model.generate(
                input_ids=context,
                max_new_tokens=max_length - context.shape[1],
                stopping_criteria=StoppingCriteriaList([batches.RowsEnd(stopper, start)]),
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
                logits_processor=guards,
                **generation_kwargs,
            )
        generated = int((out[:, start:] != self.tokenizer.pad_token_id).sum()) - len(out)
        self.work.went_plainly(generated, forwards=out.shape[1] - start, pushed=out.numel() - len(out))
        return out

    def sharing(self) -> Sharing:
        """Return what answers requests together (see ``harness.models.acting`` for text that acts).

        It is turned off when the forward pass behind every score is not ours: sharing would pass it by.
        """
        for name in ("_model_call", "_select_cont_toks"):
            if not is_as(self, CausalLM, name) and not self._is_plain:
                self._sharing.refuse(f"{type(self).__name__} has a {name} of its own", for_good=True)
        return self._sharing

    def check_ids(self, sequences: Sequence[Sequence[int]], requests: Sequence[Instance] = ()) -> None:
        """Raise ``HarnessError`` when the tokenizer made an id that the model has no embedding for, naming the request."""
        check_ids(sequences, rows=len(self.model.get_input_embeddings().weight), requests=requests)

    @property
    def _is_plain(self) -> bool:
        return self._sharing.refusal is not None

    def _check_finite(self, scores: Sequence[float | None], requests: Sequence[Instance]) -> None:
        given = [number for number, score in enumerate(scores) if score is not None]
        check_finite([scores[number] or 0.0 for number in given], [requests[number] for number in given])

    def _pairs(self, requests: Sequence[Instance]) -> list[tuple[list[int], list[int]]]:
        """Return the ids of context and continuation of each request; those that will be cut are counted."""
        with self.work.timed("tokenizing"):
            pairs = encoding.encode_pairs(self, [request.args for request in requests])
        self.check_ids([context + continuation for context, continuation in pairs], requests)
        for request, (context, continuation) in zip(requests, pairs, strict=True):
            check_pair(request, context, continuation, max_length=self.max_length)
            self.truncated[request.task_name] += len(context) + self._beside(len(continuation) - 1) > self.max_length
        return pairs

    def _beside(self, count: int) -> int:
        """Return how many places the tokens of an answer take from the prompt: none where a decoder has its own."""
        return 0 if self.backend == "seq2seq" else count

    def _windows(self, token_ids: list[int], first: int) -> list[Window]:
        return windows_of(token_ids, first=first, max_length=self.max_length)

    def _end_of_text(self) -> int:
        """Return the id documents end with: what stands before the first token of a new text."""
        end = self.tokenizer.eos_token_id
        return int(self.prefix_token_id if end is None else end)


def _flat(windows: Sequence[Sequence[Window]]) -> tuple[list[Window], list[int]]:
    """Return the windows of all requests in a row, and the number of the request of each."""
    flat = [window for several in windows for window in several]
    return flat, [number for number, several in enumerate(windows) for _ in several]
