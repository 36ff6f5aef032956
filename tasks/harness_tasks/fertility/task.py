"""The task ``fertility``: how many tokens a tokenizer spends on a word, how many bytes it puts in a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig

from harness.errors import HarnessError
from harness_tasks.texts import TEXTS


class Doc(TypedDict):
    """A text, the number of its words (what white space separates) and of its bytes in UTF-8."""

    text: str
    words: int
    bytes: int


class Fertility(Task):
    """Sends each text as a ``tokenize`` request and scores the number of token ids that come back.

    Needs an LM with ``tokenize(requests) -> list[list[int]]``, where a request's arguments are ``(text,)``; no weights.
    """

    VERSION = 1.0
    OUTPUT_TYPE = "tokenize"
    request_types: ClassVar[tuple[str, ...]] = ("tokenize",)

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the documents; ``config`` is the task file, with the user's metadata merged in."""
        # Task.__init__ would download a data set and passes the whole config as the task's name.
        metadata = dict(config["metadata"])
        self.VERSION = metadata["version"]
        self._config = TaskConfig(task=config["task"], output_type="tokenize", num_fewshot=0, metadata=metadata)
        self._docs = [Doc(text=text, words=len(text.split()), bytes=len(text.encode())) for text in TEXTS]
        self._instances: list[Instance] | None = None

    def has_training_docs(self) -> bool:
        """Return False: there is nothing to train on."""
        return False

    def has_validation_docs(self) -> bool:
        """Return False."""
        return False

    def has_test_docs(self) -> bool:
        """Return True."""
        return True

    def test_docs(self) -> Sequence[Doc]:
        """Return one document a text, in the order of ``TEXTS``."""
        return self._docs

    def doc_to_text(self, doc: Doc) -> str:
        """Return the text itself."""
        return doc["text"]

    def doc_to_target(self, doc: Doc) -> str:
        """Return an empty text: no answer is right or wrong."""
        return ""

    def fewshot_context(self, doc: Doc, num_fewshot: int, **_: Any) -> str:
        """Return the text alone: shots would be tokenized with it."""
        return doc["text"]

    def construct_requests(self, doc: Doc, ctx: str, *, metadata: tuple[str, int, int], **_: Any) -> Instance:
        """Return the one request of ``doc``."""
        return Instance(request_type="tokenize", doc=doc, arguments=(ctx,), idx=0, metadata=metadata)

    def apply_filters(self) -> None:
        """Hand the answers on as they are."""
        for instance in self.instances:
            instance.filtered_resps["none"] = instance.resps[0]

    def process_results(self, doc: Doc, results: list[list[int]]) -> dict[str, float]:
        """Return ``fertility`` (tokens per word) and ``bytes_per_token`` of one text.

        Raises:
            HarnessError: the text has no token.
        """
        tokens = len(results[0])
        if tokens == 0:
            raise HarnessError(
                f"the tokenizer gives no token for the text {doc['text'][:30]!r}..., so it has no fertility; "
                "check the tokenizer"
            )
        return {"fertility": tokens / doc["words"], "bytes_per_token": doc["bytes"] / tokens}

    def aggregation(self) -> dict[str, Callable[[list[float]], float]]:
        """Return the mean over texts for both metrics, so that lm-eval can add a standard error."""
        return {"fertility": mean, "bytes_per_token": mean}

    def higher_is_better(self) -> dict[str, bool]:
        """Return which way is good: fewer tokens a word, more bytes a token."""
        return {"fertility": False, "bytes_per_token": True}
