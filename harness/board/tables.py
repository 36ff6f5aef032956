"""What a board is made of: tables of rows of scores, and the records that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.board.omissions import Omissions
from harness.board.ranking import Difference
from harness.board.scores_by_document import SampleFiles
from harness.records.intervals import Interval
from harness.records.labels import method_label
from harness.records.record import Record


@dataclass(frozen=True, slots=True)
class Metric:
    """Which number a column holds."""

    name: str
    filter: str
    higher_is_better: bool | None

    @property
    def title(self) -> str:
        """The name, with the filter where there is one."""
        return self.name if self.filter == "none" else f"{self.name} ({self.filter})"


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one row: the mean over seeds, its standard error over documents, and its rank.

    ``rank`` is 1 + how many rows are shown to be better, so rows that cannot be told apart share one; ``rank_on_model`` is that
    among the rows of the same model, and whether another has it. ``unranked`` says why there is none; empty when nothing is
    wrong with the score itself. ``is_contradicted``: that is because it does not follow from its samples, its tasks or its own
    counts, and so tells nothing at all. ``notes`` say where the number is not what it seems. ``difference`` is that to the
    untouched model, ``against_full`` that of a quantised model to the same method on its full precision.
    """

    value: float | None
    stderr: float | None
    deviation: float | None
    by_seed: tuple[tuple[str, float | None], ...]
    sources: tuple[int, ...]
    unranked: str = ""
    is_contradicted: bool = False
    notes: tuple[str, ...] = ()
    interval: Interval | None = None
    difference: Difference | None = None
    against_full: Difference | None = None
    rank: int | None = None
    is_tied: bool = False
    rank_on_model: tuple[int, bool] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One method with one set of options on one model; its seeds are merged. ``sources`` has one record a seed.

    ``seconds`` are those of method and evaluation, ``seconds_a_document`` of the evaluation alone; means over seeds.
    """

    first: Record
    board: str
    variant: str
    scores: dict[tuple[str, str], Score]
    sources: tuple[int, ...]
    seconds: float
    seconds_a_document: float | None
    peak_bytes: int | None

    @property
    def label(self) -> str:
        """The method as people name it."""
        return method_label(self.first)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the untouched model."""
        return self.first.is_baseline

    @property
    def is_contradicted(self) -> bool:
        """Whether one of its scores does not follow: the row stands last then."""
        return any(score.is_contradicted for score in self.scores.values())

    @property
    def code(self) -> str:
        """Version and code of the plugin: results of edited code are results of another method."""
        plugin = self.first.plugin
        return f"{plugin.version or ''} {(plugin.code_digest or '')[:6]}".strip()


@dataclass(frozen=True, slots=True)
class Table:
    """What answers the same questions: one task with the same documents, shots and prompts, models as rows."""

    first: Record
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    options: tuple[str, ...]
    has_codes: bool
    has_models: bool
    has_quantizations: bool
    is_partial: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Board:
    """All tables, or some, the records that rows name by number, how many of them it is about, and what was left out."""

    tables: tuple[Table, ...]
    records: Sequence[Record]
    files: SampleFiles
    omissions: Omissions
    count: int

    def scores(self) -> Iterator[Score]:
        """Yield every score of every table."""
        return (score for table in self.tables for row in table.rows for score in row.scores.values())
