"""The positive and the negative adapter: one base, trained on right and on wrong responses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import HarnessError
from harness.folders import new_folder
from harness.json_lines import read_json
from harness.names import printable
from harness.seeds import stream_seed
from harness_critical_tokens.encoding import Encoded
from harness_critical_tokens.scoring import NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.methods.training import Batch

MOST_WARMUP = 100  # steps, as released; fewer where there are few steps


@dataclass(frozen=True)
class ContrastSettings:
    """How both adapters are trained: steps of AdamW at a peak rate, on so many responses a step."""

    rank: int
    alpha: float
    modules: tuple[str, ...]
    steps: int
    learning_rate: float
    batch_size: int

    @classmethod
    def of(cls, options: Any) -> ContrastSettings:
        """Return what a method's ``contrast_...`` options say."""
        names = ("rank", "alpha", "modules", "steps", "learning_rate", "batch_size")
        return cls(**{name: getattr(options, f"contrast_{name}") for name in names})


def trained_adapters(
    model: Any,
    encoded: Sequence[tuple[Encoded, Encoded]],
    settings: ContrastSettings,
    *,
    seed: int,
    workdir: Path,
) -> tuple[PeftModel, dict[str, Any]]:
    """Train an adapter on the chosen and one on the rejected responses, and keep them as ``positive/`` and ``negative/``.

    Args:
        model: the base; both adapters are put on it.
        encoded: chosen and rejected response of each pair.
        settings: how.
        seed: seeds first factors and the order of responses.
        workdir: gets the two folders, each when it is whole.

    Returns:
        The model with both adapters, and what training reported of each.
    """
    from harness.methods import adapters, training

    report = {}
    warmup = min(MOST_WARMUP, math.ceil(0.1 * settings.steps))
    for side, name in enumerate((POSITIVE, NEGATIVE)):
        model = adapters.add_adapter(
            model,
            rank=settings.rank,
            alpha=settings.alpha,
            target_modules=settings.modules,
            seed=stream_seed(seed, name),
            name=name,
        )
        log = training.train(
            model,
            _batches([pair[side] for pair in encoded], settings, seed=stream_seed(seed, name, "order")),
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            warmup_steps=warmup,
            label=f"Training ({name})",
        )
        with new_folder(workdir / name) as folder:
            adapters.save_adapter(model, folder, name=name)
        report[name] = log.report()
    return model, report


def loaded_adapters(model: Any, folder: Path) -> PeftModel:
    """Return the model with the adapters ``positive/`` and ``negative/`` of a folder, none of them trained further.

    Raises:
        HarnessError: one is missing, of another base, or has layers of its own instead of the base's.
    """
    from harness.methods import adapters

    for name in (POSITIVE, NEGATIVE):
        config = folder / name / "adapter_config.json"
        if not config.is_file():
            raise HarnessError(
                f"there is no adapter '{name}' in '{printable(folder)}'; give the folder that a run of score left as artefacts/"
            )
        if read_json(config).get("modules_to_save"):
            raise HarnessError(
                f"the adapter '{name}' in '{printable(folder)}' has whole layers of its own (modules_to_save), so that the base "
                "could not be its reference; train one without"
            )
        model = adapters.load_adapter(model, folder / name, name=name)
    return model


def _batches(rows: Sequence[Encoded], settings: ContrastSettings, *, seed: int) -> Iterator[Batch]:
    from harness.methods.preferences import shuffled
    from harness.methods.training import pad

    for numbers in shuffled(len(rows), settings.batch_size, seed=seed):
        yield pad([(rows[number].token_ids, rows[number].labels) for number in numbers])
