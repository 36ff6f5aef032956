"""Answer ``tokenize`` requests with a tokenizer alone, without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from lm_eval.api.model import LM

from harness.errors import HarnessError
from harness.models.lm import TOKENIZER_ONLY, Answering

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase


class WithoutHead(LM, Answering):
    """An LM that reads text as ids and says nothing about the next one: it has no scores and writes no text.

    A subclass names its ``answers`` and ``advice``, calls ``LM.__init__`` and sets ``tokenizer``.
    """

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's own name, as lm-eval writes it down."""
        return str(getattr(self.tokenizer, "name_or_path", "")).replace("/", "__")

    def tokenize(self, requests: list[Instance]) -> list[list[int]]:
        """Return the ids of each request's text, without special tokens.

        Args:
            requests: ``arguments`` is ``(text,)``.
        """
        return encode_all(self.tokenizer, [request.args[0] for request in requests])

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Refuse: there is no output head."""
        self._refuse("loglikelihood")

    def loglikelihood_rolling(self, requests: list[Instance]) -> NoReturn:
        """Refuse: there is no output head."""
        self._refuse("loglikelihood_rolling")

    def generate_until(self, requests: list[Instance]) -> NoReturn:
        """Refuse: there is no output head."""
        self._refuse("generate_until")

    def _refuse(self, request_type: str) -> NoReturn:
        raise HarnessError(f"{type(self).__name__} cannot answer '{request_type}' requests{self.advice}")


class TokenizerOnly(WithoutHead):
    """An LM that knows how to read, and nothing else (``--model tokenizer``)."""

    answers: ClassVar[frozenset[str]] = TOKENIZER_ONLY.answers
    advice: ClassVar[str] = TOKENIZER_ONLY.advice

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        LM.__init__(self)
        self.tokenizer = tokenizer

    def replace(self, *, tokenizer: PreTrainedTokenizerBase) -> TokenizerOnly:
        """Return the LM of another tokenizer."""
        return type(self)(tokenizer)


def encode_all(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the ids of each text without special tokens, each distinct text encoded once."""
    distinct = list(dict.fromkeys(texts))
    ids = tokenizer(distinct, add_special_tokens=False)["input_ids"] if distinct else []
    by_text = dict(zip(distinct, ids, strict=True))
    return [list(by_text[text]) for text in texts]
