"""What each cell sets, made into the run that its command line would give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.redaction import file_name
from harness.run.flags import KEY_VALUE, configurable, parsed, run_of
from harness.run.run import Run
from harness.sweeps import keys
from harness.sweeps.axes import Combination
from harness.sweeps.checkpoints import with_checkpoint
from harness.sweeps.located import Located
from harness.sweeps.written import Written


@dataclass(frozen=True)
class Draft:
    """A cell before it is checked.

    Attributes:
        settings: what its run was made of, to say where a mistake stands.
    """

    run: Run
    axes: Mapping[str, str]
    settings: Combination

    def mistake(self, sentence: object, names: Iterable[str], otherwise: Located) -> HarnessError:
        """Return the error that says a sentence of the first of some names that this cell sets."""
        return next((self.settings[name] for name in names if name in self.settings), otherwise).mistake(sentence)


def drafts(
    written: Written, combinations: Sequence[Combination], output: Path, labels: Mapping[str, str]
) -> list[Draft]:
    """Return the cells of a sweep, in the order of their combinations.

    Args:
        output: the folder of all records; where tasks differ between cells, each has a folder of its tasks in it.
        labels: what tells cells apart, as ``labelled`` gives it.

    Raises:
        HarnessError: a value is none that its flag takes, or a checkpoint is not there.
    """
    template = written.entries.get("checkpoints")
    made = _Runs()
    found = []
    for combination in combinations:
        settings = written.shared | combination
        if template is not None:
            settings = with_checkpoint(template, settings, written.folder)
        axes = {label: shown(combination[name]) for name, label in labels.items() if name in combination}
        found.append(Draft(made.run(settings, written.at), axes, settings))
    several = "tasks" in written.axis_names or len({draft.run.tasks for draft in found}) > 1
    folders = {
        tasks: output / file_name(",".join(tasks)) if several else output for tasks in {d.run.tasks for d in found}
    }
    return [replace(draft, run=replace(draft.run, output_path=folders[draft.run.tasks])) for draft in found]


def shown(value: Located) -> str:
    """Return a value as a table shows it."""
    if isinstance(value.value, list):
        return ",".join(map(str, value.value))
    return value.text or value.mark


def labelled(written: Written, combinations: Iterable[Combination]) -> dict[str, str]:
    """Return the names that tell cells apart, with what they are called: of entries of ``methods``, those that differ."""
    marks: dict[str, set[str | None]] = {}
    combinations = list(combinations)
    names = [*written.axis_names, *dict.fromkeys(name for one in combinations for name in one)]
    plain = {name for axis in written.axes if not axis.is_grouped for name in axis.names}
    for name in dict.fromkeys(names):
        marks[name] = {one[name].mark if name in one else None for one in combinations}
    return keys.short_names(name for name, seen in marks.items() if name in plain or len(seen) > 1)


class _Runs:
    """Runs, made of values each of which is parsed once."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[str, str], dict[str, Any]] = {}

    def run(self, settings: Combination, at: Located) -> Run:
        """Return the run of some settings; ``at`` is where a mistake stands that is of none of them."""
        given: dict[str, Any] = {}
        for name, value in self._joined(settings).items():
            key = (name, value.mark)
            if key not in self._parsed:
                self._parsed[key] = _parsed(name, value)
            given |= self._parsed[key]
        try:
            return run_of(given)
        except HarnessError:
            for name, value in self._joined(settings).items():
                try:
                    run_of(self._parsed[(name, value.mark)])
                except HarnessError as error:
                    raise value.mistake(error) from error
            raise

    def _joined(self, settings: Combination) -> Combination:
        """Return settings by flag, the options of each mapping together."""
        joined: Combination = {}
        options: dict[str, dict[str, Located]] = {}
        for name, value in settings.items():
            flag, dot, option = name.partition(".")
            if dot and flag in KEY_VALUE:
                if value.value is not None or flag != "model_args":
                    options.setdefault(flag, {})[option] = value
            elif name in configurable():
                joined[name] = value
        for flag, given in options.items():
            parts = dict(sorted(given.items()))  # one command has one spelling, whatever of it is an axis
            where = next(iter(parts.values())).where
            joined[flag] = Located({option: part.value for option, part in parts.items()}, where, parts=parts)
        return joined


def _parsed(name: str, value: Located) -> dict[str, Any]:
    try:
        return parsed(name, value.value)
    except HarnessError as error:
        raise value.mistake(error) from error
