"""ModelSource: what is known of a model before its weights are read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.models.identity import WEIGHT_SUFFIXES, digest_files
from harness.names import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
QUANTIZATIONS = ("none", "int8", "nf4")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: everything that is known before its weights are read.

    ``name`` is for people and records: a hub name, or the last part of a folder's path.
    """

    name: str
    location: str
    revision: str | None = None
    gguf_file: str | None = None
    tokenizer: str | None = None
    dtype: str = "auto"
    quantization: str = "none"
    trust_remote_code: bool = False
    attn_implementation: str | None = None
    device_map: str | None = None
    peft: str | None = None
    lm_args: dict[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder here rather than a name on the Hub."""
        return Path(self.location).is_dir()

    @property
    def folder(self) -> Path:
        """Where the model's files lie on this machine: its folder, or the Hub's snapshot in the cache."""
        if self.is_local:
            return Path(self.location)
        from transformers.utils.hub import cached_file

        return Path(str(cached_file(self.location, self.gguf_file or "config.json", **self._revision()))).parent

    @cached_property
    def config(self) -> Any:
        """The model's configuration. Raises ``HarnessError`` when it cannot be had."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(
                self.location, **self._revision(), **self._gguf(), trust_remote_code=self.trust_remote_code
            )
        except Exception as error:  # a config of any shape makes transformers raise anything
            raise HarnessError(
                f"model '{printable(self.name)}' has no usable configuration: {_first_line(error)}"
            ) from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the local files that make the model, or the commit it has on the Hub."""
        if not self.is_local:
            return self._hub_commit()
        folder = Path(self.location)
        files = (
            [folder / self.gguf_file] if self.gguf_file else _weight_files(folder) + _existing(folder / "config.json")
        )
        if self.peft and Path(self.peft).is_dir():
            files += [path for path in Path(self.peft).iterdir() if path.is_file() and path.name.startswith("adapter")]
        return digest_files(files)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer.

        Raises:
            HarnessError: there is none, or it needs something that is missing.
        """
        from transformers import AutoTokenizer

        location = self.tokenizer or self.location
        gguf = {} if self.tokenizer else self._gguf()
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                location, **self._revision(), **gguf, trust_remote_code=self.trust_remote_code
            )
        except Exception as error:  # whatever a half-empty folder makes transformers raise
            raise HarnessError(
                f"model '{printable(self.name)}' comes without a usable tokenizer ({_first_line(error)}); "
                "name one with --model_args tokenizer=..."
            ) from error
        if not len(tokenizer):
            raise HarnessError(
                f"the tokenizer of '{printable(self.name)}' has an empty vocabulary; name another with tokenizer="
            )
        return tokenizer

    def check(self) -> PreTrainedTokenizerBase:
        """Do every check that needs no weights, and return the tokenizer.

        Raises:
            HarnessError: no configuration, no tokenizer, or one that cuts usual text into ids that the model does not embed.
        """
        from harness.models import encoding

        rows = getattr(self.config.get_text_config(), "vocab_size", None)
        tokenizer = self.load_tokenizer()
        prefix = self.lm_args.get("prefix_token_id")
        if prefix is not None and not 0 <= prefix < (rows or len(tokenizer)):
            raise HarnessError(
                f"prefix_token_id {prefix} is no id of '{printable(self.name)}', which has {rows or len(tokenizer)}"
            )
        if rows is not None and encoding.gives_beyond(tokenizer, rows):
            raise HarnessError(
                f"the tokenizer of '{printable(self.name)}' has {len(tokenizer)} ids, but the model embeds {rows}; "
                "name the tokenizer it was trained with (--model_args tokenizer=...)"
            )
        return tokenizer

    def _hub_commit(self) -> str:
        """Return the commit whose files would be loaded. Raises ``HarnessError`` when the Hub's cache does not tell."""
        from transformers.utils.hub import cached_file, extract_commit_hash

        path = cached_file(self.location, self.gguf_file or "config.json", **self._revision())
        commit = extract_commit_hash(path, None)
        if commit is None:
            raise HarnessError(
                f"the commit of model '{printable(self.name)}' cannot be told; load it from a folder instead"
            )
        return str(commit)

    def _revision(self) -> dict[str, Any]:
        return {} if self.revision is None or self.is_local else {"revision": self.revision}

    def _gguf(self) -> dict[str, Any]:
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())


def _existing(path: Path) -> list[Path]:
    return [path] if path.is_file() else []


def _first_line(error: BaseException) -> str:
    """Return what an exception says, in one line short enough for a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if os.environ.get("HF_HUB_OFFLINE") == "1" and ("offline" in text.lower() or "connect" in text.lower()):
        text = "it is no folder here, and HF_HUB_OFFLINE=1 forbids looking on the Hub"
    return printable(text[:300])
