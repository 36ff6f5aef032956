"""How a request's text is to be written, when it ends and how it is cut: as lm-eval means it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transformers import GenerationMixin

from harness.errors import HarnessError
from harness.generation_settings import IDS, applied, for_transformers, is_greedy
from harness.models.guards import check_room, named
from harness.models.thinking import Thinking, shown
from harness.models.tree.prompts import Prompt
from harness.requests import CUT_IN_THINKING, Explained

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM


@dataclass(frozen=True)
class Wish:
    """How one text is to be written.

    Attributes:
        limit: tokens at most.
        until: texts that end it, the end-of-text among them.
        ends: ids that end it.
        is_greedy: whether it is plain greedy search.
        thinks: whether it may begin with thinking, in which ``until`` sleeps.
        settings: for ``generate`` of transformers; ``key`` is the same as text.
    """

    limit: int
    until: tuple[str, ...]
    ends: frozenset[int]
    is_greedy: bool
    thinks: bool
    key: str
    settings: Mapping[str, Any] = field(compare=False)


class Wishes:
    """What the requests of one LM ask for: its checkpoint's settings are read once.

    Args:
        lm: a ``CausalLM``; its model may be another one later; make new ``Wishes`` then.
    """

    def __init__(self, lm: Any, thinking: Thinking | None) -> None:
        self.lm, self.thinking = lm, thinking
        self.own = own_settings(lm.model)
        self._applied: dict[str, dict[str, Any]] = {}
        eot = lm.eot_token_id
        self._eot = frozenset() if eot is None else frozenset([int(eot)])
        self._end = "" if eot is None else str(lm.tok_decode([eot], skip_special_tokens=False))

    def applied(self, request: Instance) -> dict[str, Any]:
        """Return what decides the text of a request, see ``harness.generation_settings.applied``.

        Raises:
            HarnessError: a setting that is not taken or that the model cannot follow; the request is named.
        """
        settings = request.args[1]
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in self._applied:
            found = applied(settings, self.own, most=self.lm.max_gen_toks, place=named(request))
            rows = int(self.lm.model.get_input_embeddings().weight.shape[0])
            for name in sorted(IDS & settings.keys()):
                if max(found.get(name) or [0]) >= rows:
                    raise HarnessError(
                        f"{named(request)} has {name} {max(found[name])}, but the model has {rows} tokens"
                    )
            self._applied[key] = found
        return self._applied[key]

    def counted(self, request: Instance, prompt_tokens: int) -> Wish:
        """Return how the text of a request is to be written, as ``wish``; the LM counts and notes what records say of it.

        Raises:
            HarnessError: as ``wish``, or there is no prompt, or no room for it.
        """
        if not prompt_tokens:
            raise HarnessError(f"{named(request)} has a prompt without tokens; fix the task")
        lm, wish = self.lm, self.wish(request, prompt_tokens)
        is_causal = lm.backend == "causal"
        if is_causal:
            check_room(request, wish.limit, max_length=lm.max_length)
        lm.truncated[request.task_name] += prompt_tokens > lm.max_length - (wish.limit if is_causal else 0)
        values = self.applied(request)
        stream = {"stream": "seeds.torch"} if values["do_sample"] else {}
        note(lm.generation.setdefault(request.task_name, {}), {**values, **stream, **shown(self.thinking)})
        return wish

    def wish(self, request: Instance, prompt_tokens: int) -> Wish:
        """Return how the text of a request is to be written, which has so many tokens before it.

        Raises:
            HarnessError: as ``applied``; or ``max_length`` leaves no room for an answer.
        """
        values = self.applied(request)
        before = prompt_tokens if self.lm.backend == "causal" else 1
        limit = int(values.get("max_gen_toks") or min(values["max_length"], self.lm.max_length) - before)
        if limit < 1:
            raise HarnessError(
                f"{named(request)} has a prompt of {before} tokens, and max_length {values['max_length']} counts them, too; "
                "say how long the answer may be with --gen_kwargs max_gen_toks=..."
            )
        least = int(values.get("min_new_tokens") or max(0, values.get("min_length", 0) - before))
        told = for_transformers(values, self.own) | {"min_new_tokens": least or None, "min_length": 0}
        until = [*values["until"], *([self._end] if self._end and self._end not in values["until"] else [])]
        return Wish(
            limit=limit,
            until=tuple(until),
            ends=frozenset(values["eos_token_id"]) | self._eot,
            is_greedy=not least and is_greedy({name: v for name, v in values.items() if name != "min_length"}),
            thinks=self.thinking is not None and self.thinking.may_begin(request.args[0]),
            key=json.dumps(told, sort_keys=True, default=str),
            settings=told,
        )


def note(known: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Add what decided a text to what decided others of its task; what differs is in ``by_request``, all its values."""
    if not known:
        known.update(settings)
    for name in (known.keys() | settings.keys()) - {"by_request"} if known != settings else ():
        values = known.get("by_request", {}).get(name)
        if values is None and known.get(name) != settings.get(name):
            values = known.setdefault("by_request", {})[name] = [known.pop(name, None)]
        if values is not None and settings.get(name) not in values:
            values.append(settings.get(name))


def own_settings(model: Any) -> dict[str, Any]:
    """Return what a checkpoint says of how text is generated: what is set in its ``generation_config.json``."""
    config = getattr(model, "generation_config", None)
    return {} if config is None else {name: value for name, value in config.to_dict().items() if value is not None}


def is_own(model: Any) -> bool:
    """Return whether a model generates as transformers does, with no way of its own."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "generate" not in vars(model) and type(inner).generate is GenerationMixin.generate


class Stopper:
    """Says whether generated ids end: at an end token, or with a stop string in the last few of them.

    While a model thinks only an end token ends a text.
    """

    def __init__(self, lm: HFLM, wish: Wish, thinking: Thinking | None) -> None:
        self.lm, self.wish, self.thinking = lm, wish, thinking
        # Two tokens more than the string's own: the model may spell it in other tokens, as lm-eval allows, too.
        self.back = (
            max((len(lm.tokenizer.encode(text, add_special_tokens=False)) for text in wish.until), default=0) + 2
        )

    def __call__(self, token_ids: Sequence[int]) -> bool:
        """Return whether a text of these ids has ended."""
        if token_ids[-1] in self.wish.ends:
            return True
        tail = self.lm.tokenizer.decode(list(token_ids[-self.back :]))
        return any(text in tail for text in self.wish.until) and self.is_awake(token_ids)

    def is_awake(self, token_ids: Sequence[int]) -> bool:
        """Return whether a stop string in these ids is one of the answer: thinking has ended before it."""
        if self.thinking is None:
            return True
        answer = self.thinking.answer(token_ids, skip_special_tokens=False)
        return not self.wish.thinks if answer is None else any(text in answer for text in self.wish.until)


def prompts_of(
    lm: HFLM,
    thinking: Thinking | None,
    requests: Sequence[Instance],
    wishes: Sequence[Wish],
    ids: Mapping[str, list[int]],
) -> list[tuple[Prompt, Wish, list[int]]]:
    """Return the distinct prompts of those requests that are plain greedy search, what each is for, and its requests' numbers.

    Equal requests have equal answers. Prompts are cut on the left to leave room for what they may generate.

    Args:
        ids: of each request's text.
    """
    asked: dict[tuple[str, Wish], list[int]] = {}
    for number, (request, wish) in enumerate(zip(requests, wishes, strict=True)):
        if wish.is_greedy and ids[request.args[0]]:
            asked.setdefault((request.args[0], wish), []).append(number)
    return [
        (Prompt(ids[text][-(lm.max_length - wish.limit) :], wish.limit, Stopper(lm, wish, thinking)), wish, numbers)
        for (text, wish), numbers in asked.items()
    ]


def finished_text(lm: HFLM, thinking: Thinking | None, context: str, token_ids: Sequence[int], wish: Wish) -> str:
    """Return the answer in generated ids: what stands behind the thinking, up to the first stop string.

    Args:
        context: the prompt.
        token_ids: without padding; the end token may be left out.
    """
    if thinking is None:
        return ends_at(str(lm.tok_decode(token_ids)), wish.until)
    answer = thinking.answer(token_ids)
    if answer is None:
        ended_itself = len(token_ids) < wish.limit or token_ids[-1] in wish.ends
        if wish.thinks and (not ended_itself or thinking.has_begun(context, token_ids)):
            return cut()
        answer = str(lm.tok_decode(token_ids)).lstrip()
    return Explained(ends_at(answer, wish.until))


def cut() -> Explained:
    """Return the answer of a text that ended while the model was still thinking."""
    return Explained("", [CUT_IN_THINKING])


def ends_at(text: str, until: Sequence[str]) -> str:
    """Return ``text`` up to the first of the texts that end it."""
    for end in until:
        text = text.partition(end)[0]
    return text
