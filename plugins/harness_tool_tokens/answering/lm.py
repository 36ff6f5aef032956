"""The LM under evaluation: a CausalLM whose greedy text may call tools, and which tells what it would call where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from harness import HarnessError
from harness.models import acting, encoding, greedy
from harness.models.acting import Prompt
from harness.models.causal import CausalLM
from harness.models.chat import ChatTemplate
from harness.models.guards import named
from harness.progress import bar
from harness_tool_tokens.answering import documents, judging
from harness_tool_tokens.answering.answer import Answer, Writing
from harness_tool_tokens.answering.choosing import Chooser, number_words
from harness_tool_tokens.answering.equipped import Tools
from harness_tool_tokens.answering.oracle import oracle_answer
from harness_tool_tokens.answering.parts import Wanted

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ToolTokenLM(CausalLM):
    """A ``CausalLM`` that may call tools where it generates, and answers ``tool_choice``.

    Nothing of the model is changed or hooked: tool logits are made of the hidden states that its output head reads. Models
    that scale or cap their logits after the head do so to words alone.
    """

    answers: ClassVar[frozenset[str]] = CausalLM.answers | {"tool_choice"}
    tells_answers: ClassVar[bool] = True

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, tools: Tools, **settings: Any
    ) -> None:
        """Wrap a model as ``CausalLM`` does, with ``tools``."""
        super().__init__(model, tokenizer, **settings)
        self.tools = tools

    def replace(
        self, *, model: PreTrainedModel | None = None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Self:
        """Return this LM with another model or tokenizer and the same tools."""
        return type(self)(model or self.model, tokenizer or self.tokenizer, tools=self.tools, **self.settings)

    @torch.no_grad()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer with tools; without any (variant no_tools) as ``CausalLM``.

        Returns:
            ``Explained`` texts, each with a trace of its calls.

        Raises:
            HarnessError: a request is no greedy search, its question does not fit the context, or an oracle is asked for
                what its task does not tell.
        """
        if self.tools.variant == "no_tools":
            return super().generate_until(requests, disable_tqdm)
        if self.tools.variant == "oracle_call":
            call = self.tools.executor.call
            return [oracle_answer(documents.wanted_of(request, self.tools, self._chat), call) for request in requests]
        if not requests:
            return []
        wishes, ids = self._contexts(requests)
        distinct: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            # Equal requests have equal answers; documents may tell more than the prompt does.
            key = repr((request.args, request.doc.get("tool_use") if isinstance(request.doc, dict) else None))
            distinct.setdefault(key, []).append(number)
        members = list(distinct.values())
        answers = [self._answer(requests[numbers[0]], wishes[numbers[0]], ids) for numbers in members]
        self._bound(answers)
        with bar(len(requests), "Generating", unit="text", disable=disable_tqdm) as progress:
            # The hook knows answers by their arguments; where documents with equal ones differ, the end tells them apart.
            times = Counter(repr(requests[numbers[0]].args) for numbers in members)

            def done(place: int) -> None:
                args = requests[members[place][0]].args
                if times[repr(args)] == 1:
                    self.tell("generate_until", args, answers[place].result)
                progress.update(len(members[place]))

            def took(place: int, prompt: Prompt, generated: list[int]) -> Sequence[Prompt]:
                more = answers[place].took(prompt, generated)
                if not more:
                    done(place)
                return more

            acting.generate(
                self,
                [answer.first for answer in answers],
                [requests[numbers[0]] for numbers in members],
                on_done=took,
                choose=self._chooser,
                longest=max(answer.max_length for answer in answers),
            )
        results: list[str] = [""] * len(requests)
        for numbers, answer in zip(members, answers, strict=True):
            for number in numbers:
                assert answer.result is not None
                results[number] = answer.result
        return results

    @torch.no_grad()
    def tool_choice(self, requests: list[Instance]) -> list[dict[str, Any]]:
        """Return, for texts with calls at known places, which tool would be called there and elsewhere.

        Args:
            requests: ``arguments`` is ``(text, {"calls": [{"tool", "start", "end"}]})``.

        Returns:
            One dict a request, see ``harness_tool_tokens.answering.judging``.

        Raises:
            HarnessError: there are no tool rows, or they were trained on the text.
        """
        if self.tools.head is None:
            raise HarnessError(
                f"tool_choice asks which tool row is the best, and variant={self.tools.variant} has no rows; leave it out"
            )
        answers = judging.judge(self, requests, self.tools)
        for request, answer in zip(requests, answers, strict=True):
            self.tell("tool_choice", request.args, answer)
        return answers

    # How an answer is made.

    def _bound(self, answers: Sequence[Answer]) -> None:
        """Keep answers within what the model can share, where their prompts are: texts grow by calls and results."""
        most = acting.most_tokens(self, [answer.first for answer in answers])
        for answer in answers:
            if most is not None and len(answer.first.token_ids) + answer.first.limit <= most:
                answer.max_length = min(answer.max_length, most)

    def _answer(self, request: Instance, wish: greedy.Wish, ids: dict[str, list[int]]) -> Answer:
        if not wish.is_greedy or not greedy.is_own(self.model):
            raise HarnessError(
                f"{named(request)} asks for sampling or more than greedy search, and tools are chosen greedily; use "
                "--gen_kwargs do_sample=false, or variant=no_tools"
            )
        wanted = documents.wanted_of(request, self.tools, self._chat)
        documents.check(request, wanted, self.tools)
        first = ids[wanted.context]
        if not first:
            raise HarnessError(f"{named(request)} has a prompt without tokens; fix the task")
        self._check_question_fits(request, wanted, wish.limit)
        return Answer(wanted, self.tools, self._writing(wish, wanted.context), first[-(self.max_length - wish.limit) :])

    def _writing(self, wish: greedy.Wish, context: str) -> Writing:
        thinking = self.thinking
        is_text = thinking is not None and thinking.ids is None
        ids = [] if thinking is None or thinking.ids is None else thinking.ids
        return Writing(
            encode=self._encoded,
            decode=self._decoded,
            ends=wish.ends,
            first_tool=self._first_tool,
            max_length=self.max_length,
            limit=wish.limit,
            until=wish.until,
            stop=greedy.Stopper(self, wish, thinking),
            stop_answer=greedy.Stopper(self, wish, None),
            cut=lambda text: greedy.ends_at(text, wish.until),
            finished=lambda token_ids: greedy.finished_text(self, thinking, context, token_ids, wish),
            thinks=wish.thinks,
            think_end=ids[0] if len(ids) == 1 else None,
            think_mark=thinking.mark if thinking is not None and is_text else None,
        )

    def _encoded(self, text: str) -> list[int]:
        return encoding.encode_prompts(self, [text])[text]

    def _decoded(self, token_ids: Sequence[int]) -> str:
        return str(self.tok_decode([id_ for id_ in token_ids if id_ < self._first_tool]))

    def _contexts(self, requests: Sequence[Instance]) -> tuple[list[greedy.Wish], dict[str, list[int]]]:
        """Return how each text is to be written, and the ids of the prompts that will be read; those that are cut are counted."""
        if not self.tools.is_in_context:
            return self.wishes(requests)
        contexts = [documents.wanted_of(request, self.tools, self._chat).context for request in requests]
        ids = encoding.encode_prompts(self, contexts)
        asked = greedy.Wishes(self, self.thinking)
        return [
            asked.counted(request, len(ids[context])) for request, context in zip(requests, contexts, strict=True)
        ], ids

    def _check_question_fits(self, request: Instance, wanted: Wanted, limit: int) -> None:
        """Raise when cutting the prompt on the left would cut the question."""
        if wanted.question is None:
            return
        from_question = wanted.context[wanted.context.rfind(wanted.question) :]
        tokens = len(self._encoded(from_question))
        if tokens > self.max_length - limit:
            raise HarnessError(
                f"{named(request)} has a question of {tokens} tokens, which does not fit the model's context of "
                f"{self.max_length} beside {limit} new ones; lower these with --gen_kwargs max_gen_toks=..."
            )

    @property
    def _chooser(self) -> Chooser:
        return Chooser(
            None if self.tools.is_in_context else self.tools.head,
            first_tool=self._first_tool,
            continues_number=self._number_words,
            is_oracle=self.tools.variant == "oracle_tool",
            decode=self._decoded,
        )

    @cached_property
    def _first_tool(self) -> int:
        head = self.model.get_output_embeddings()
        rows = getattr(head, "out_features", None)
        return int(len(head.weight) if rows is None else rows)

    @cached_property
    def _number_words(self) -> torch.Tensor:
        return number_words(self.tokenizer, self._first_tool).to(self.device)

    @cached_property
    def _chat(self) -> ChatTemplate | None:
        if not getattr(self.tokenizer, "chat_template", None):
            return None
        return ChatTemplate(lambda messages: str(self.apply_chat_template(messages)))
