"""Answering: all that the host asks of an LM, with what is true of an LM that says nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace, new_class
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness.models.tree.work import Work

# What lm-eval asks of every LM.
LM_EVAL_ANSWERS = frozenset({"loglikelihood", "loglikelihood_rolling", "generate_until"})


class Answering:
    """The contract between the host and an LM, beside lm-eval's own: one method per request type, given ``Instance`` objects.

    ``CausalLM`` and ``TokenizerOnly`` have it; an LM of any other class gets the defaults once, by ``of``. It stands last
    among a class's bases, so that whatever the LM has of its own comes first.

    Attributes:
        answers: the request types it answers: names of its methods.
        model: the weights, a ``torch.nn.Module``; None for an LM without any.
        tokenizer: what cuts text into ids; None for an LM without ids.
        device: where it computes, as torch spells it.
        rank: which of several processes this is, from 0.
        max_length: the longest text in tokens; None where there is no bound.
        prefix_token_id: stands before the first token of a text that has nothing before it; None where nothing does.
        work: what the answers took since ``start_counting``; None where nobody counts.
        truncated: requests that were cut to fit the context since ``start_counting``, by task.
        on_answer: is told of each answer as soon as it is there, see ``tell``; None where nobody listens.
    """

    answers: ClassVar[frozenset[str]] = LM_EVAL_ANSWERS
    model: Any = None
    tokenizer: Any = None
    device: Any = "cpu"
    max_length: Any = None
    prefix_token_id: Any = None
    work: Work | None = None
    truncated: Mapping[str, int] = MappingProxyType({})
    on_answer: Callable[[str, Any, Any], None] | None = None
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

        False unless an LM says so: a method may make something else of what the steps below it answer.
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
    """Return ``lm`` as one that keeps the contract: itself, with the defaults for whatever its class does not have.

    A class of the same name with ``Answering`` behind the LM's own is put under the object, which stays what it is: lm-eval
    asks many more things of an LM than a wrapper could hand on.
    """
    if isinstance(lm, Answering):
        return lm
    kind = type(lm)
    own = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    lm.__class__ = new_class(kind.__name__, (kind, Answering), exec_body=lambda names: names.update(own))
    return lm
