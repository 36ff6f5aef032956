"""The untouched model of a command: loaded when it is wanted, and kept from seed to seed as long as nothing changed it."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.progress import say
from harness.run.changes import CodeState, ModelState
from harness.run.identity import describe_model
from harness.run.preparing import load

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.run.preparing import Prepared


class Untouched:
    """The LM of a run before its method.

    Args:
        is_used_again: more seeds follow, so that it is worth a look whether the model is as it was.
    """

    def __init__(self, prepared: Prepared, *, is_used_again: bool = False) -> None:
        self._prepared, self._is_used_again = prepared, is_used_again
        self._lm: Any = None
        self._base: Mapping[str, Any] = {}
        self._state: ModelState | None = None
        self._code: CodeState | None = None
        self._settings: Any = None

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are there."""
        return self._lm is not None

    def lm(self) -> LM:
        """Return the LM, loaded if it is not there."""
        if self._lm is None:
            self._lm = load(self._prepared)
            self._base = describe_model(self._lm)
            if self._is_used_again:
                self._settings = (type(self._lm), copy.deepcopy(getattr(self._lm, "settings", None)))
                self._state, self._code = ModelState.of(self._lm.model), CodeState.of(self._lm)
        lm: LM = self._lm
        return lm

    def base(self) -> Mapping[str, Any]:
        """Return ``describe_model`` of the LM."""
        self.lm()
        return self._base

    def renew(self) -> None:
        """Make ready for the next seed: the model is kept where it is as it was, and loaded again where it is not.

        Tokenizer and LM are made anew in either case, and what was replaced in the libraries' code is put back.
        """
        lm, self._lm = self._lm, None
        if lm is None or not self._is_used_again:
            return
        assert self._code is not None
        replaced = self._code.put_back()
        if replaced:
            say(f"code of {', '.join(replaced[:3])} was replaced, and is put back for the next seed")
        kind, settings = self._settings
        if lm.model is not None and settings is not None and ModelState.of(lm.model) == self._state:
            tokenizer = self._prepared.source.load_tokenizer()
            self._lm = kind(lm.model, tokenizer, **copy.deepcopy(settings))
            return
        del lm
        gc.collect()  # before the next one is loaded: there may be room for one
