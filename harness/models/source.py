"""ModelSource: what is known of a model before its weights are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.models import adapter_files, files
from harness.models.identity import chat_template_digest, digest_files, tokenizer_digest
from harness.names import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
QUANTIZATIONS = ("none", "int8", "nf4")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: everything that is known before its weights are read.

    ``name`` is for people and records: a hub name, or the last part of a folder's path. ``subfolder`` is of a repository on the
    Hub; of a folder here, ``location`` is the subfolder.
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
    subfolder: str | None = None
    backend: str = "default"
    lm_args: dict[str, Any] = field(default_factory=dict)
    engine_args: dict[str, Any] = field(default_factory=dict)

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

        return Path(str(cached_file(self.location, self.gguf_file or "config.json", **self._place()))).parent

    @cached_property
    def config(self) -> Any:
        """The model's configuration. Raises ``HarnessError`` when it cannot be had."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(
                self.location, **self._place(), **self._gguf(), trust_remote_code=self.trust_remote_code
            )
        except Exception as error:  # a config of any shape makes transformers raise anything
            raise HarnessError(
                f"model '{printable(self.name)}' has no usable configuration: {first_line(error)}"
            ) from error

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the model reads the prompt apart from what it answers, as T5 does; seen as lm-eval sees it."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

        return self.config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the local files that make the model, or the commit it has on the Hub, and of all else that decides.

        That is everything ``from_pretrained`` reads or may run, but for the tokenizer's files: its rules, vocabulary and
        chat template have digests of their own.
        """
        index: list[Path] = []
        if self.is_local:
            folder = Path(self.location)
            weights, index = ([folder / self.gguf_file], []) if self.gguf_file else files.read_weights(folder)
            config = folder / "config.json"
            own = [*weights, *([config] if config.is_file() and not self.gguf_file else []), *self._adapter_files()]
            known = digest_files(own)
        else:
            known = _hub_commit(self.location, self.gguf_file or "config.json", **self._place())
        within = f"subfolder {self.subfolder}" if self.subfolder else ""
        more = [part for part in (within, self._besides(index), self._adapter(), *self._code()) if part]
        # A model that has nothing more is called what it was always called.
        return hashlib.sha256("\n".join([known, *more]).encode()).hexdigest() if more else known

    def _besides(self, index: list[Path]) -> str:
        """Return the digest of what else is read in the model's folder."""
        besides = [*index, *files.read_besides(Path(self.location))] if self.is_local else []
        return digest_files(besides) if besides else ""

    def _adapter_files(self) -> list[Path]:
        folder = Path(self.peft or "")
        is_here = self.peft is not None and folder.is_dir()
        return (
            [path for path in folder.iterdir() if path.is_file() and path.name.startswith("adapter")] if is_here else []
        )

    def _adapter(self) -> str:
        """Return what names an adapter whose files are not beside those of a local model: its digest, or its commit."""
        if not self.peft or (self.is_local and Path(self.peft).is_dir()):
            return ""
        if Path(self.peft).is_dir():
            return f"adapter {digest_files(self._adapter_files())}"
        return f"adapter {_hub_commit(self.peft, files.ADAPTER_CONFIG)}"

    def _code(self) -> Iterator[str]:
        """Yield what names the Python files that are run with ``trust_remote_code``, and that the model's commit does not."""
        if not self.trust_remote_code:
            return
        places = dict.fromkeys([self.location, self.tokenizer or self.location])
        for place in places:
            if Path(place).is_dir():
                if code := files.code_files(Path(place)):
                    yield f"code {digest_files(code, below=Path(place))}"
            elif place != self.location:
                yield f"code {_hub_commit(place, 'tokenizer_config.json')}"
        names = ("config.json", "tokenizer_config.json")
        configs = [path for place in places for name in names if (path := self._found(place, name))]
        for place, file in files.code_elsewhere(*configs):
            folder = Path(place)
            is_here = folder.is_dir()
            yield f"code {place} {digest_files(files.code_files(folder), below=folder) if is_here else _hub_commit(place, file)}"

    def _found(self, place: str, name: str) -> Path | None:
        """Return a file of a folder, or of the Hub's cache."""
        from transformers.utils.hub import cached_file

        if Path(place).is_dir():
            return Path(place) / name
        try:
            found = cached_file(place, name, **(self._place() if place == self.location else {}))
        except OSError:  # a repository without it
            return None
        return Path(found) if found else None

    @property
    def tokenizer_digests(self) -> tuple[str, str | None]:
        """The digests of the tokenizer that the model comes with and of its chat template, None where it has none.

        They are of the tokenizer that was checked; as long as none was, of what is there now.
        """
        is_checked = bool({"_tokenizer", "_checked_digests"} & vars(self).keys())
        return self._checked_digests if is_checked else _digests(self.load_tokenizer())

    @cached_property
    def _checked_digests(self) -> tuple[str, str | None]:
        return _digests(self._tokenizer)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, to be looked at; who may change it is given one of its own."""
        return self.load_tokenizer()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, which is the caller's own.

        Raises:
            HarnessError: there is none, or it needs something that is missing.
        """
        from transformers import AutoTokenizer

        location = self.tokenizer or self.location
        gguf = {} if self.tokenizer else self._gguf()
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                location,
                **(self._revision() if self.tokenizer else self._place()),
                **gguf,
                trust_remote_code=self.trust_remote_code,
            )
        except Exception as error:  # whatever a half-empty folder makes transformers raise
            raise HarnessError(
                f"model '{printable(self.name)}' comes without a usable tokenizer ({first_line(error)}); "
                "name one with --model_args tokenizer=..."
            ) from error
        if not len(tokenizer):
            raise HarnessError(
                f"the tokenizer of '{printable(self.name)}' has an empty vocabulary; name another with tokenizer="
            )
        return tokenizer

    def take_tokenizer(self) -> PreTrainedTokenizerBase:
        """Do every check that needs no weights, and return the tokenizer that was checked, from now on the caller's own."""
        tokenizer = self.check()
        vars(self).pop("_tokenizer", None)
        return tokenizer

    def check(self) -> PreTrainedTokenizerBase:
        """Do every check that needs no weights, and return the tokenizer, to be looked at.

        Raises:
            HarnessError: no configuration, no tokenizer, or one that cuts usual text into ids that the model does not embed.
        """
        from harness.models.vocabulary import gives_beyond

        if self.backend != "default" and self.backend == ("causal" if self.is_encoder_decoder else "seq2seq"):
            kind = "an" if self.is_encoder_decoder else "no"
            raise HarnessError(f"'{printable(self.name)}' is {kind} encoder-decoder; leave backend={self.backend} out")
        if self.peft and self.is_local and not self.gguf_file and Path(self.peft).is_dir():
            adapter_files.check_sizes(Path(self.peft), Path(self.location), name=self.name)
        rows = getattr(self.config.get_text_config(), "vocab_size", None)
        tokenizer = self._tokenizer
        prefix = self.lm_args.get("prefix_token_id")
        if prefix is not None and not 0 <= prefix < (rows or len(tokenizer)):
            raise HarnessError(
                f"prefix_token_id {prefix} is no id of '{printable(self.name)}', which has {rows or len(tokenizer)}"
            )
        if rows is not None and gives_beyond(tokenizer, rows):
            raise HarnessError(
                f"the tokenizer of '{printable(self.name)}' has {len(tokenizer)} ids, but the model embeds {rows}; "
                "name the tokenizer it was trained with (--model_args tokenizer=...)"
            )
        return tokenizer

    def _revision(self) -> dict[str, Any]:
        return {} if self.revision is None or self.is_local else {"revision": self.revision}

    def _place(self) -> dict[str, Any]:
        return self._revision() | ({} if self.subfolder is None else {"subfolder": self.subfolder})

    def _gguf(self) -> dict[str, Any]:
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


def _digests(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str | None]:
    return tokenizer_digest(tokenizer), chat_template_digest(tokenizer)


def _hub_commit(name: str, file: str, **revision: str) -> str:
    """Return the commit whose files would be loaded. Raises ``HarnessError`` when the Hub's cache does not tell."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        commit = extract_commit_hash(cached_file(name, file, **revision), None)
    except OSError as error:
        raise HarnessError(f"'{printable(name)}' has no usable {file}: {first_line(error)}") from error
    if commit is None:
        raise HarnessError(f"the commit of '{printable(name)}' cannot be told; load it from a folder instead")
    return str(commit)


def first_line(error: BaseException) -> str:
    """Return what an exception says, in one line short enough for a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if os.environ.get("HF_HUB_OFFLINE") == "1" and ("offline" in text.lower() or "connect" in text.lower()):
        text = "it is no folder here, and HF_HUB_OFFLINE=1 forbids looking on the Hub"
    return printable(text[:300])
