"""Record: one metric of one run with all that is needed to repeat it, and the keys that say what it compares with.

The fields and both keys are explained in ``docs/records.md``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

SCHEMA = 1
# What stands for a text that the files of another tool do not state.
UNKNOWN = "unknown"
# What stands in a line beside the fields of its record; the last names the files where some of them are.
COMPUTED = frozenset({"key", "digest", "chain", "beside"})
# Given as validation context: no number in the content is NaN or infinite.
FINITE = {"is_finite": True}
_CANONICAL = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


# Text and truth values are no numbers, and no count is below 0 or beyond what a machine can have asked.
Number = Annotated[float, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=10**15)]
# Wide enough for a seed of 64 bits, and to be computed with.
Whole = Annotated[int, Field(ge=-(10**20), le=10**20)]


class _Part(BaseModel):
    """A part of a record: unchangeable; fields a newer minor version added are kept; no NaN, no infinity."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class PluginPart(_Part):
    """Where the method comes from; all None for a run without ``--plugin``."""

    name: str | None = None
    distribution: str | None = None
    version: str | None = None
    code_digest: str | None = None


class MethodPart(_Part):
    """The method and every option it ran with, defaults included; ``inputs`` digests the content of what they name."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    inputs: str | None = None


class ModelPart(_Part):
    """The model the method was given. ``digest``: SHA-256 of its files, or its commit on the Hub.

    ``tokenizer_digest`` is that of the tokenizer it came with; the one after the method is in ``TokenizerPart``.
    """

    name: str
    revision: str | None = None
    digest: str
    dtype: str
    quantization: str = "none"
    bits_per_weight: float | None = None
    parameters: Whole | None = None
    weights_changed: Whole | None = None
    tokenizer_digest: str | None = None


class TokenizerPart(_Part):
    """The tokenizer the scores were made with, after the method."""

    digest: str
    vocabulary: Whole | None
    prefix_token_id: Whole | None = None


class TaskPart(_Part):
    """The task, and the exact documents and prompts that were asked.

    ``size``: documents of the whole split. ``members``: of a group, the tasks below it that have the metric. ``drawn``:
    answers are drawn at random, so that another seed gives others.
    """

    name: str
    version: str
    group: bool = False
    docs_digest: str | None = None
    prompts_digest: str | None = None
    size: Whole | None = None
    members: list[str] | None = None
    drawn: bool = False


class MetricPart(_Part):
    """Which number this is; ``aggregation`` is lm-eval's name of what makes one value of those of the documents."""

    name: str
    filter: str = "none"
    higher_is_better: bool | None = None
    aggregation: str | None = None


class SettingsPart(_Part):
    """What else decides the prompts and the answers."""

    num_fewshot: Whole | None = None
    limit: float | None = None
    samples_digest: str | None = None
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool | None = None
    system_instruction: str | None = None
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    model_args: dict[str, Any] = Field(default_factory=dict)


class SeedsPart(_Part):
    """The seeds, as lm-eval names them; ``random`` is also the one the method got."""

    random: Whole | None = None
    numpy: Whole | None = None
    torch: Whole | None = None
    fewshot: Whole | None = None


class EnvironmentPart(_Part):
    """Versions of everything that can move a score.

    ``engine``: what computed the model in torch's place, such as vLLM. ``threads_from`` says how ``threads`` came about
    (``Threads.how``); None where torch computes nothing.
    """

    python: str
    torch: str
    transformers: str
    lm_eval: str
    peft: str
    bitsandbytes: str | None = None
    engine: str | None = None
    harness: str
    harness_commit: str | None = None
    harness_digest: str | None = None
    platform: str
    device: str
    threads: Whole | None = None
    threads_from: str | None = None
    processes: Whole | None = None


class CostPart(_Part):
    """What the run took. Bytes are peaks of this process (CPU) or of the device (CUDA) during the stage.

    ``scoring`` counts the tokens that went through the model to answer the requests of the whole command.
    """

    apply_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    apply_peak_bytes: Whole | None = None
    evaluate_peak_bytes: Whole | None = None
    tokens_trained: Whole | None = None
    reused: bool = False
    scoring: dict[str, Any] | None = None


class SamplesPart(_Part):
    """The file with every document, prompt and answer; the path is relative to the folder of the record file."""

    path: str
    sha256: str
    rows: Whole | None = None


class CountsPart(_Part):
    """Documents and requests asked; requests that were cut to fit the context, or got a score that is no number.

    ``scored_docs``: the documents that have the metric, where those are not all of them.
    Of generated texts: how many are empty, how many different ones there are, and how many ended while the
    model was still thinking (``cut_in_thinking``), which makes them empty answers.
    """

    docs: Count
    scored_docs: Count | None = None
    requests: Count | None = None
    truncated_requests: Count = 0
    not_finite: Count = 0
    empty_answers: Count | None = None
    distinct_answers: Count | None = None
    cut_in_thinking: Count | None = None

    @property
    def scored(self) -> int:
        """How many documents the value is over."""
        return self.docs if self.scored_docs is None else self.scored_docs


class ForeignPart(_Part):
    """That another tool measured this, by its own files: which tool, its version, and what the files do not state.

    ``unknown`` names fields of the record, or whole parts such as ``seeds``: what stands there is a placeholder, which
    nothing may be concluded from. ``trial`` tells measurements of one configuration apart whose seeds are not known.
    """

    tool: str
    version: str | None = None
    unknown: list[str] = Field(default_factory=list)
    trial: str | None = None


class Record(_Part):
    """One metric of one run; ``value`` is None where the task has no score, and ``status`` is ``invalid`` then.

    ``notes`` are sentences that say where the number is not what it seems. ``generation`` holds what decided length, stops
    and sampling of generated texts, as it was applied; neither is part of a key. ``foreign`` stands only in what was read
    from the files of another tool, and in no ledger.
    """

    schema_version: Annotated[int, Field(strict=True, ge=1)] = SCHEMA
    created: str
    status: Literal["ok", "invalid"] = "ok"
    run: str | None = None
    plugin: PluginPart = PluginPart()
    method: MethodPart
    model: ModelPart
    tokenizer: TokenizerPart
    task: TaskPart
    metric: MetricPart
    value: Number | None
    stderr: Number | None = None
    counts: CountsPart
    settings: SettingsPart = SettingsPart()
    seeds: SeedsPart = SeedsPart()
    environment: EnvironmentPart
    batch_size: str
    cost: CostPart = CostPart()
    samples: SamplesPart | None = None
    report: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    generation: dict[str, Any] | None = None
    command: str = ""
    foreign: ForeignPart | None = None

    @model_validator(mode="after")
    def _refuse_infinite(self, info: ValidationInfo) -> Record:
        """Refuse NaN and infinity inside the free-form parts, too, and a score of what has none."""
        # What was read from a file was refused there already; asked 100,000 times this takes seconds.
        if info.context is not FINITE:
            json.dumps([self.report, self.method.options, self.settings.gen_kwargs], allow_nan=False, default=str)
        if (self.value is None) != (self.status == "invalid"):
            raise ValueError(f"status {self.status} does not go with value {self.value}")
        return self

    def __eq__(self, other: object) -> bool:
        """Compare what was measured, not which keys were asked for already."""
        return isinstance(other, Record) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced; its keys are its own."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("_board_key", "_run_key"):
            copy.__dict__.pop(name, None)
        return copy

    @property
    def is_baseline(self) -> bool:
        """Whether this is the untouched model."""
        return self.method.name == "baseline"

    def repeats(self, other: Record) -> bool:
        """Whether both are the untouched model with one value: measured again, which is no news and no mistake either."""
        return self.is_baseline and other.is_baseline and self.value == other.value

    def states(self, field: str) -> bool:
        """Whether a field, such as ``model.digest``, says something: the files of another tool leave some out."""
        unknown = self.foreign.unknown if self.foreign is not None else ()
        return field not in unknown and field.split(".")[0] not in unknown

    @property
    def is_partial(self) -> bool:
        """Whether only some of the task's documents were asked."""
        is_cut = self.settings.limit is not None or self.settings.samples_digest is not None
        return is_cut and self.counts.docs != self.task.size

    def board_key(self) -> str:
        """Digest of what must agree for two records to stand in one table: model, task, shots, limit, prompts."""
        return self._board_key

    def comparison_key(self) -> str:
        """Digest of what must agree for two values to be subtracted: the board and the metric."""
        return _digest([self.board_key(), self.metric.name, self.metric.filter])

    def run_key(self) -> str:
        """Digest of what one command evaluated: method, options, seeds, model and code, on one board."""
        return self._run_key

    def key(self) -> str:
        """Digest of everything that decides the value: two records with one key are one measurement repeated."""
        return _digest([self.run_key(), self.metric.name, self.metric.filter])

    @property
    def is_drawn(self) -> bool:
        """Whether answers are drawn at random; of a record that does not say, whether its settings ask for it."""
        says = "drawn" in self.task.model_fields_set
        return self.task.drawn if says else bool(self.task.drawn or self.settings.gen_kwargs.get("do_sample"))

    @property
    def fewshot_seed(self) -> int | None:
        """The seed of the shots, None where there are none and it decides nothing."""
        return self.seeds.fewshot if self.settings.num_fewshot else None

    @property
    def deciding_seeds(self) -> dict[str, Any] | int | None:
        """All seeds; of the untouched model only that of the shots, as long as it does not draw its answers."""
        if self.is_baseline and not self.is_drawn:
            return self.fewshot_seed
        trial = {} if self.foreign is None or self.foreign.trial is None else {"trial": self.foreign.trial}
        return self.seeds.model_dump() | trial

    def content(self) -> dict[str, Any]:
        """Return the record as JSON values: every field, or of a record that was read the fields it was written with."""
        # So the digest of a record does not change when a later version of the form adds fields.
        content = self.model_dump(mode="json", exclude_unset="schema_version" in self.model_fields_set)
        if self.foreign is None:
            content.pop("foreign", None)
        return content

    def digest(self) -> str:
        """Return the SHA-256 of the content; where its sample file lies is no part of that."""
        return digest_of(self.content())

    def to_line(self, **more: str) -> str:
        """Return the record as one line of JSON without NaN, key and digest (and ``more``) beside the fields."""
        content = self.content()
        content |= {"key": self.key(), "digest": digest_of(content), **more}
        return json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=False)

    @cached_property  # a board asks 100,000 records for their keys
    def _board_key(self) -> str:
        task = [self.task.name, self.task.version, self.task.docs_digest]
        engine = self.environment.engine  # its numbers are another's by more than rounding
        return _digest(
            {
                **({"engine": engine.split()[0]} if engine else {}),
                "model": self.model.model_dump(include={"name", "digest", "dtype", "quantization", "tokenizer_digest"}),
                "task": [*task, self.task.prompts_digest] if self.task.prompts_digest else task,
                "settings": self.settings.model_dump() | {"fewshot_seed": self.fewshot_seed},
                "prefix": self.tokenizer.prefix_token_id,
            }
        )

    @cached_property
    def _run_key(self) -> str:
        method = [self.plugin.name, self.plugin.distribution, self.plugin.version, self.plugin.code_digest]
        return _digest([self.board_key(), method, self.method.model_dump(), self.deciding_seeds])


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's content as JSON values, in whatever order it stands.

    Left out are what is no field of it (``key``, ``digest``, ``chain``, ``beside``) and the path of its sample file, which
    changes when the record is published while the digest of that file does not.
    """
    return digest_of_texts({n: field_text(n, value) for n, value in content.items() if n not in COMPUTED})


def field_text(name: str, value: Any) -> str:
    """Return a field as it enters the digest: canonical JSON, of samples without their path."""
    if name == "samples" and isinstance(value, Mapping):
        value = {part: content for part, content in value.items() if part != "path"}
    return canonical(value)


def digest_of_texts(texts: Mapping[str, str]) -> str:
    """Return the digest of a record whose fields have these ``field_text``s."""
    text = ",".join([f"{_name(name)}:{texts[name]}" for name in sorted(texts)])
    return hashlib.sha256(f"{{{text}}}".encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1000)
def _name(name: str) -> str:
    return canonical(name)


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, NaN refused: one text for one content."""
    return _CANONICAL.encode(value)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
