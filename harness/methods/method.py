"""Method and Baseline: the contract of everything that changes an LM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from lm_eval.api.model import LM


@runtime_checkable
class Method(Protocol):
    """One published technique, as a change to the LM under evaluation.

    A frozen dataclass; its fields are its options. Five members are optional:

    * ``leaves_model_unchanged`` (bool): True when, with these options, no tensor and no tokenizer will change. Without
      it, a method that changed nothing is an error.
    * ``fingerprint() -> str``: called before any weights are loaded. Reads what the options name (training text),
      raises ``HarnessError`` when it cannot be used, and returns a digest of its content.
    * ``answers`` (frozenset of request types): what the LM that ``apply`` returns answers besides what the one it is
      given does. Without it, a task that asks for more is refused before weights are loaded.
    * ``needs_weights`` (bool): False when it asks the LM and looks at nothing below it, so that an engine may compute the model
      (``--model vllm``). Without it, such a kind of model is refused before weights are loaded.
    * ``models`` (tuple of names): other models that it loads with these options, as ``--model_args pretrained`` takes them;
      ``harness prepare`` fetches them.
    """

    name: ClassVar[str]

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Return the LM to evaluate. May change ``lm`` in place: the caller gives it away.

        Args:
            lm: the untouched LM.
            seed: seeds everything random the method does.
            workdir: a folder of this method's own, named by the digest of everything that decides the result (method,
                plugin version and code, options, model, seed, training data). It is empty, or it holds exactly what
                an earlier identical run left when it *finished*: what a killed run left was removed, but for what it kept
                with ``harness.methods.parts``. A file
                ``report.json`` written there (one JSON object) becomes the ``report`` of the record.
        """
        ...


@dataclass(frozen=True)
class Baseline:
    """The model as it is."""

    name: ClassVar[str] = "baseline"
    leaves_model_unchanged: ClassVar[bool] = True

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Return ``lm`` itself."""
        return lm
