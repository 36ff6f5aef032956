"""Run: what one command evaluates, and the words that give it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.redaction import redact
from harness.run.shard import Shard


@dataclass(frozen=True)
class Run:
    """What one command evaluates. Fields are named as the flags of ``harness eval``, which are lm-eval's.

    ``seeds`` are those of ``random``, ``numpy``, ``torch`` and of few-shot draws; the first is the method's too. ``shard``
    is the part of the requests that this process answers; the records are those of the run without it.
    """

    tasks: tuple[str, ...]
    plugin: str | None = None
    method: str | None = None
    method_args: Mapping[str, Any] = field(default_factory=dict)
    model: str = "hf"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    quantization: str = "none"
    num_fewshot: int | None = None
    batch_size: int | str = "auto"
    device: str | None = None
    limit: float | None = None
    samples: Mapping[str, list[int]] | None = None
    seeds: tuple[int | None, int | None, int | None, int | None] = (0, 1234, 1234, 1234)
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    include_path: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    output_path: Path = Path("results")
    log_samples: bool = True
    bootstrap_iters: int = 100_000
    with_baseline: bool = False
    no_cache: bool = False
    timeout_task: float | None = None
    confirm_run_unsafe_code: bool = False
    shard: Shard | None = None

    def words(self) -> list[str]:
        """Return the words of a command line that give this run: what differs from the defaults, and the seeds."""
        words: list[str] = []
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name in {"seeds", "log_samples", "bootstrap_iters"} or value in (part.default, {}, ()):
                continue
            if part.name == "include_path":
                words += [word for path in value for word in _flag(part.name, path)]
            elif value is True:
                words.append(f"--{part.name}")
            else:
                words += _flag(part.name, _flag_text(part.name, value))
        if not self.log_samples:
            words.append("--no-log_samples")
        return [*words, "--seed", ",".join(str(seed) for seed in self.seeds)]

    def command(self) -> str:
        """Return the command line that repeats this run, every given option spelled out, secrets taken out."""
        command = redact(shlex.join(["harness", "eval", *self.words()]))
        return command.encode("utf-8", "backslashreplace").decode()


def _flag(name: str, text: str) -> list[str]:
    """Return a flag with its value; joined by = where the value would look like a flag of its own."""
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _flag_text(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        typed = name in {"gen_kwargs", "metadata"}  # text there is told from numbers by its quotes
        plain = all(isinstance(v, str | int | float | bool) and _is_plain(str(v)) for v in value.values())
        return (
            ",".join(f"{k}={v}" for k, v in value.items())
            if plain and not typed
            else json.dumps(dict(value), default=str)
        )
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_plain(text: str) -> bool:
    """Return whether ``k=TEXT,k=TEXT`` gives the text back: nothing in it splits or opens, no white space is taken off."""
    return not set(text) & set(",=[]{}'\" ") and not text.startswith("(") and text == text.strip()
