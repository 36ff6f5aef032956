"""A base class for tasks that make their own documents and send other requests than text in, text out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig

from harness.errors import HarnessError
from harness.names import printable
from harness.tasks import whole_set

Doc = dict[str, Any]


class OwnDocsTask(Task):
    """A task reached by ``class: !function module.Class`` in YAML, whose ``metadata`` reaches ``make_docs``.

    A subclass says what it sends and what it measures; a metric is a mean over documents, with its standard
    error, unless ``aggregations`` names what makes it of all of them.

    Attributes:
        request_types: LM methods the requests go to; one class sends one type.
        metrics: name of each metric, and whether higher is better.
        aggregations: of metrics that are no mean, how they are made (``whole_set``).
        tokenizer: the tokenizer under evaluation; set before requests are built, None before that.
    """

    request_types: ClassVar[tuple[str, ...]]
    metrics: ClassVar[dict[str, bool]]
    aggregations: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Make the documents; ``config`` is the task file, with the user's metadata merged in."""
        # Task.__init__ would download a data set and passes the whole config as the task's name.
        metadata = dict(config["metadata"])
        self.VERSION = metadata["version"]
        self.OUTPUT_TYPE = self.request_types[0]
        self._config = TaskConfig(task=config["task"], output_type=self.OUTPUT_TYPE, num_fewshot=0, metadata=metadata)
        self._docs = self.make_docs(metadata)
        self._instances: list[Instance] | None = None
        self.tokenizer: Any = None

    @abstractmethod
    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the documents, each with its ``text``."""

    @abstractmethod
    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the arguments of each request of ``doc``; the first argument is text."""

    @abstractmethod
    def score(self, doc: Doc, answers: list[Any]) -> Mapping[str, Any]:
        """Return what every metric takes of one document, given the answers to its requests in order."""

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Take the tokenizer under evaluation."""
        self.tokenizer = tokenizer

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
        """Return the documents."""
        return self._docs

    def doc_to_text(self, doc: Doc) -> str:
        """Return the text of ``doc``."""
        return str(doc["text"])

    def doc_to_target(self, doc: Doc) -> str:
        """Return an empty text: no answer is right or wrong."""
        return ""

    def fewshot_context(self, doc: Doc, num_fewshot: int, **_: Any) -> str:
        """Return the text alone: shots would be measured with it."""
        return str(doc["text"])

    def construct_requests(self, doc: Doc, ctx: str, *, metadata: tuple[str, int, int], **_: Any) -> list[Instance]:
        """Return the requests of ``doc``."""
        return [
            Instance(request_type=self.request_types[0], doc=doc, arguments=arguments, idx=index, metadata=metadata)
            for index, arguments in enumerate(self.arguments(doc))
        ]

    def apply_filters(self) -> None:
        """Hand the answers on as they are."""
        for instance in self.instances:
            instance.filtered_resps["none"] = instance.resps[0]

    def process_results(self, doc: Doc, results: list[Any]) -> dict[str, Any]:
        """Return the metrics of one document."""
        return dict(self.score(doc, results))

    def aggregation(self) -> dict[str, Callable[[list[Any]], float]]:
        """Return what makes each metric of the values of all documents."""
        return {metric: whole_set.function(self.aggregations.get(metric, "mean")) for metric in self.metrics}

    def higher_is_better(self) -> dict[str, bool]:
        """Return which way is good, by metric."""
        return dict(self.metrics)


def whole_number(name: str, value: Any, *, at_least: int) -> int:
    """Return a value of a task's metadata that has to be a whole number of ``at_least`` or more.

    Raises:
        HarnessError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise HarnessError(
            f"{name} in the task's metadata is {printable(value)}; give a whole number of {at_least} or more"
        )
    return value
