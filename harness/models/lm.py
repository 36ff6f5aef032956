"""Answering: all that the host asks of an LM, with what is true of an LM that says nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MappingProxyType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness.models.due import Due
    from harness.models.tree.work import Work

# What lm-eval asks of every LM.
LM_EVAL_ANSWERS = frozenset({"loglikelihood", "loglikelihood_rolling", "generate_until"})


@dataclass(frozen=True)
class Promise:
    """What a class of LMs will answer, known before the class is imported, which takes torch and seconds.

    Attributes:
        kind: the name of the class.
        answers, advice: those of ``Answering``.
    """

    kind: str
    answers: frozenset[str]
    advice: str = ""


CAUSAL = Promise("CausalLM", LM_EVAL_ANSWERS | {"token_loglikelihoods", "tokenize"})
VLLM = Promise("VLLM", CAUSAL.answers)
TOKENIZER_ONLY = Promise("TokenizerOnly", frozenset({"tokenize"}), "; load weights with --model hf")
ENCODER = Promise("Encoder", frozenset({"embed", "tokenize"}), "; load a language model with --model hf")


class Answering:
    """The contract between the host and an LM, beside lm-eval's own: one method per request type, given ``Instance`` objects.

    ``CausalLM`` and ``TokenizerOnly`` have it, as the last of their bases, so that what lm-eval's class has comes first; an LM of
    any other class gets the defaults once, by ``of``.

    Attributes:
        answers: the request types it answers: names of its methods.
        model: the weights, a ``torch.nn.Module``; None for an LM without any.
        tokenizer: what cuts text into ids; None for an LM without ids.
        device: where it computes, as torch spells it.
        max_length: the longest text in tokens; None where there is no bound.
        prefix_token_id: stands before the first token of a text that has nothing before it; None where nothing does.
        work: what the answers took since ``start_counting``; None where nobody counts.
        truncated: requests that were cut to fit the context since ``start_counting``, by task.
        generation: what decided length, stops and sampling of the texts since ``start_counting``, by task.
        tells_answers: whether it calls ``tell`` for each answer that it is going to return.
        cut_side: where such a request was cut, to end a sentence with.
        advice: what to do about a request type that it does not answer, to end a sentence with.
        on_answer: is told of each answer as soon as it is there, see ``tell``; None where nobody listens.
        due: which of the requests that it is given are to be answered, see ``leaves_out``; None: all of them.
    """

    answers: ClassVar[frozenset[str]] = LM_EVAL_ANSWERS
    model: Any = None
    tokenizer: Any = None
    device: Any = "cpu"
    max_length: Any = None
    prefix_token_id: Any = None
    work: Work | None = None
    truncated: Mapping[str, int] = MappingProxyType({})
    generation: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    tells_answers: ClassVar[bool] = False
    cut_side: ClassVar[str] = "on the left"
    advice: ClassVar[str] = ""
    on_answer: Callable[[str, Any, Any], None] | None = None
    due: Due | None = None
    _cache: Any = None

    @property
    def cache_hook(self) -> Any:
        """What lm-eval's own classes tell of each answer, handed on to ``tell``; once set, lm-eval's cache is told, too."""
        return SimpleNamespace(add_partial=self.tell)

    @cache_hook.setter
    def cache_hook(self, hook: Any) -> None:
        self._cache = hook

    def start_counting(self) -> None:
        """Forget the work and the truncated requests of earlier evaluations."""

    def join_counts(self) -> None:
        """Add to the first process's ``work`` and ``truncated`` those of the others."""

    def count_truncated(self, kind: str, requests: list[Instance]) -> None:
        """Count requests in ``truncated`` that are answered from what an interrupted run left."""

    def tells(self, kind: str) -> bool:
        """Return whether what is told while ``kind`` requests are answered is what they are answered with in the end.

        Only where an LM says so (``tells_answers``): a method may make something else of what the steps below it answer.
        """
        return self.tells_answers

    def leaves_out(self, kind: str) -> bool:
        """Return whether ``due`` is asked about each batch of ``kind`` requests; what is in no batch it takes gets None.

        Such an LM is given all requests of a task, whichever are due. Any other is given those that are.
        """
        return False

    def tell(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Say that requests of this kind with these ``arguments`` have this answer. An interrupted run keeps it."""
        if self.on_answer is not None:
            self.on_answer(kind, arguments, answer)
        if self._cache is not None:
            self._cache.add_partial(kind, arguments, answer)


def is_as(lm: Any, kind: type, *names: str) -> bool:
    """Return whether these functions of ``lm`` are those of its base class ``kind``: no subclass's own, none put on it."""
    own = all(getattr(type(lm), name, None) is getattr(kind, name, None) for name in names)
    return own and not set(names) & set(vars(lm))


def of(lm: Any) -> Any:
    """Return ``lm`` as one that keeps the contract: itself, with the defaults for whatever it does not have.

    They are put on the object, which stays of its class: lm-eval asks many more things of an LM than a wrapper could hand on.
    What the object has by itself, or by a ``__getattr__`` that hands on to another LM, comes before a default.
    """
    own = vars(lm)
    if isinstance(lm, Answering) or "_cache" in own:
        return lm
    own["_cache"] = getattr(lm, "cache_hook", None)
    told = ("on_answer", "due", "tell")  # of this object, whatever another one behind it has
    for name in (name for name in vars(Answering) if not name.startswith("_")):
        if not hasattr(type(lm) if name in told else lm, name):
            default = vars(Answering)[name]
            own[name] = MethodType(default, lm) if isinstance(default, FunctionType) else default
    own["cache_hook"] = SimpleNamespace(add_partial=lm.tell)
    return lm
