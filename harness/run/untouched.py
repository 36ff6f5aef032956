"""The untouched model of a command: loaded when it is wanted, and kept from run to run as long as it can be put back."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.progress import say
from harness.run.changes import CodeState
from harness.run.identity import describe_model
from harness.run.preparing import load
from harness.run.restoring import Original

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.run.preparing import Prepared


class Untouched:
    """The LM of a run before its method.

    Args:
        is_used_again: more runs follow, so that it is worth a look whether the model is as it was.

    Attributes:
        load_seconds: what loading the weights took, the last time.
        saved_seconds: what was not spent on loading them again.
    """

    def __init__(self, prepared: Prepared, *, is_used_again: bool = False) -> None:
        self._prepared, self._is_used_again = prepared, is_used_again
        self._lm: Any = None
        self._base: Mapping[str, Any] = {}
        self._original: Original | None = None
        self._code: CodeState | None = None
        self._settings: Any = None
        self.load_seconds = self.saved_seconds = 0.0

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are there."""
        return self._lm is not None

    def lm(self) -> LM:
        """Return the LM, loaded if it is not there."""
        if self._lm is None:
            started = time.monotonic()
            self._lm = load(self._prepared)
            self.load_seconds = time.monotonic() - started
            self._base = describe_model(self._lm)
            if self._is_used_again:
                self._settings = (type(self._lm), copy.deepcopy(getattr(self._lm, "settings", None)))
                self._original, self._code = Original(self._lm.model), CodeState.of(self._lm)
        lm: LM = self._lm
        return lm

    def base(self) -> Mapping[str, Any]:
        """Return ``describe_model`` of the LM."""
        self.lm()
        return self._base

    def renew(self, prepared: Prepared | None = None) -> None:
        """Make ready for the next run: the model is kept where it can be put back as it was, and loaded again where not.

        Tokenizer and LM are made anew in either case, and what was replaced in the libraries' code is put back.

        Args:
            prepared: the next run, where it is another than of the next seed; its model is the same.
        """
        lm, self._lm = self._lm, None
        self._prepared = prepared or self._prepared
        if lm is None or not self._is_used_again:
            return
        assert self._code is not None
        assert self._original is not None
        replaced = self._code.put_back()
        if replaced:
            say(f"code of {', '.join(replaced[:3])} was replaced, and is put back for the next run")
        kind, settings = self._settings
        started = time.monotonic()
        if lm.model is not None and settings is not None and self._original.put_back():
            tokenizer = self._prepared.source.load_tokenizer()
            self._lm = kind(lm.model, tokenizer, **copy.deepcopy(settings))
            self.saved_seconds += max(0.0, self.load_seconds - (time.monotonic() - started))
            return
        self._original = None
        del lm
        _give_back_memory()


class Bench:
    """Keeps the untouched model from one command to the next, where both begin with the same one."""

    def __init__(self) -> None:
        self._words: Any = None
        self._model: Untouched | None = None
        self._saved = 0.0

    @property
    def saved_seconds(self) -> float:
        """What was not spent on loading weights that were there."""
        return self._saved + (self._model.saved_seconds if self._model is not None else 0.0)

    def model(self, prepared: Prepared) -> Untouched:
        """Return the untouched model of a run, the one of the run before where it is the same and can be put back."""
        run, source = prepared.run, prepared.source
        words = (run.model, run.model_args, run.quantization, run.device, run.batch_size, source.name, source.digest)
        if self._model is not None and words == self._words:
            self._model.renew(prepared)
            return self._model
        self.clear()
        self._words, self._model = words, Untouched(prepared, is_used_again=True)
        return self._model

    def clear(self) -> None:
        """Let the model go."""
        if self._model is not None:
            self._saved += self._model.saved_seconds
            self._model = None
            _give_back_memory()


def _give_back_memory() -> None:
    """Free what is not held any more, before the next model is loaded: there may be room for one."""
    from harness.models.tree.memory import give_back

    gc.collect()
    give_back()
