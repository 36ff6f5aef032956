"""Record: one metric of one run with all that is needed to repeat it, and the keys that say what it compares with.

The fields and both keys are explained in ``docs/records.md``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA = 1


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
    parameters: int | None = None
    weights_changed: int | None = None
    tokenizer_digest: str | None = None


class TokenizerPart(_Part):
    """The tokenizer the scores were made with, after the method."""

    digest: str
    vocabulary: int
    prefix_token_id: int | None = None


class TaskPart(_Part):
    """The task and the exact documents that were asked."""

    name: str
    version: str
    group: bool = False
    docs_digest: str | None = None


class MetricPart(_Part):
    """Which number this is."""

    name: str
    filter: str = "none"
    higher_is_better: bool | None = None


class SettingsPart(_Part):
    """What else decides the prompts and the answers."""

    num_fewshot: int | None = None
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

    random: int | None = None
    numpy: int | None = None
    torch: int | None = None
    fewshot: int | None = None


class EnvironmentPart(_Part):
    """Versions of everything that can move a score."""

    python: str
    torch: str
    transformers: str
    lm_eval: str
    peft: str
    bitsandbytes: str | None = None
    harness: str
    harness_commit: str | None = None
    harness_digest: str | None = None
    platform: str
    device: str
    threads: int | None = None
    processes: int | None = None


class CostPart(_Part):
    """What the run took. Bytes are peaks of this process (CPU) or of the device (CUDA) during the stage.

    ``scoring`` counts the tokens that went through the model to answer the requests of the whole command.
    """

    apply_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    apply_peak_bytes: int | None = None
    evaluate_peak_bytes: int | None = None
    tokens_trained: int | None = None
    reused: bool = False
    scoring: dict[str, Any] | None = None


class SamplesPart(_Part):
    """The file with every document, prompt and answer; the path is relative to the folder of the record file."""

    path: str
    sha256: str


class CountsPart(_Part):
    """Documents asked, and requests that had to be cut to fit the context."""

    docs: int
    truncated_requests: int = 0


class Record(_Part):
    """One metric of one run."""

    schema_version: int = SCHEMA
    created: str
    plugin: PluginPart = PluginPart()
    method: MethodPart
    model: ModelPart
    tokenizer: TokenizerPart
    task: TaskPart
    metric: MetricPart
    value: float
    stderr: float | None = None
    counts: CountsPart
    settings: SettingsPart = SettingsPart()
    seeds: SeedsPart = SeedsPart()
    environment: EnvironmentPart
    batch_size: str
    cost: CostPart = CostPart()
    samples: SamplesPart | None = None
    report: dict[str, Any] = Field(default_factory=dict)
    command: str = ""

    @model_validator(mode="after")
    def _refuse_infinite(self) -> Record:
        """Refuse NaN and infinity inside the free-form parts, too."""
        json.dumps([self.report, self.method.options, self.settings.gen_kwargs], allow_nan=False, default=str)
        return self

    @property
    def is_baseline(self) -> bool:
        """Whether this is the untouched model."""
        return self.method.name == "baseline"

    def board_key(self) -> str:
        """Digest of what must agree for two records to stand in one table: model, task, shots, limit, prompts."""
        return _digest(
            {
                "model": self.model.model_dump(include={"name", "digest", "dtype", "quantization", "tokenizer_digest"}),
                "task": [self.task.name, self.task.version, self.task.docs_digest],
                "settings": self.settings.model_dump() | {"fewshot_seed": self.fewshot_seed},
                "prefix": self.tokenizer.prefix_token_id,
            }
        )

    def comparison_key(self) -> str:
        """Digest of what must agree for two values to be subtracted: the board and the metric."""
        return _digest([self.board_key(), self.metric.name, self.metric.filter])

    def run_key(self) -> str:
        """Digest of what one command evaluated: method, options, seeds, model and code, on one board."""
        method = [self.plugin.name, self.plugin.distribution, self.plugin.version, self.plugin.code_digest]
        draws = self.settings.gen_kwargs.get("do_sample")
        seeds = self.fewshot_seed if self.is_baseline and not draws else self.seeds.model_dump()
        return _digest([self.board_key(), method, self.method.model_dump(), seeds])

    def key(self) -> str:
        """Digest of everything that decides the value: two records with one key are one measurement repeated."""
        return _digest([self.run_key(), self.metric.name, self.metric.filter])

    @property
    def fewshot_seed(self) -> int | None:
        """The seed of the shots, None where there are none and it decides nothing."""
        return self.seeds.fewshot if self.settings.num_fewshot else None

    def to_line(self) -> str:
        """Return the record as one line of JSON, without NaN, the key written beside the fields."""
        content = self.model_dump(mode="json") | {"key": self.key()}
        return json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=False)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
