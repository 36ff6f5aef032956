"""A against B: the same documents paired, task by task, and a verdict in words."""

from __future__ import annotations

import statistics as averages
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from harness.comparing import foreign_sides
from harness.comparing.checks import across_fields, agreeing_records
from harness.comparing.costs import Cost, cost_of
from harness.comparing.documents import Change, Columns, Documents, Doubts, changes, grouped_documents, paired_documents
from harness.comparing.selectors import Sourced
from harness.comparing.sides import Side
from harness.errors import HarnessError
from harness.foreign.contents import MAIN_SCORE
from harness.names import printable, suggestion
from harness.records import intervals, statistics
from harness.records.aggregation import NotRecomputableError
from harness.records.intervals import Estimate
from harness.records.record import UNKNOWN

BETTER, WORSE, HIGHER, LOWER = "better", "worse", "higher", "lower"
NO_DIFFERENCE, TOO_FEW, NOT_TESTED = "no difference shown", "too few documents to tell", "not tested"
DOES_NOT_FOLLOW = "a score does not follow"
# The smallest difference that matters, unless the user says another: of scores between 0 and 1, and as a share of the
# standard deviation between documents of all others.
MARGIN, MARGIN_DEVIATIONS = 0.05, 0.1
# Documents that do not differ at all show that there is no difference, when they are as many.
ENOUGH_ALIKE = 30
ONLY_MAIN = f"of tasks with a {MAIN_SCORE} that alone is compared; --metrics takes others"
UNPAIRED, NO_TEST = "unpaired interval, no test", "no test"
ENVIRONMENT = ("device", "engine", "harness", "lm_eval", "transformers", "torch")


@dataclass(frozen=True, slots=True)
class Request:
    """What a comparison is asked for; the names are those of the flags of ``harness compare``."""

    alpha: float = statistics.ALPHA
    margin: float | None = None
    tasks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    across: tuple[str, ...] = ()
    allow_drift: bool = False
    documents: int = 10


@dataclass(frozen=True, slots=True)
class Score:
    """One side's score: the mean over its seeds, its standard error over documents, and how it varies over seeds.

    Attributes:
        by_seed: seed and score.
        deviation: the standard deviation between seeds, None of one seed.
        known: what the records say of the error, and what the metric can be.
    """

    value: float
    stderr: float | None
    by_seed: tuple[tuple[int | None, float], ...]
    deviation: float | None
    known: Estimate


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One metric of one task: the second side against the first.

    Attributes:
        side: label of the second side; the first is the same everywhere.
        documents: how many were compared.
        difference: second less first.
        low, high: its interval; ``is_paired`` says whether by document or only from two standard errors.
        p, p_holm: of no difference, and corrected over the family; None without a test.
        detectable: the smallest true difference found with 80 % probability.
        margin: the smallest difference that matters.
        up, down: documents whose score is higher, lower on the second side.
        test: its name, or why there is none.
    """

    task: str
    is_group: bool
    metric: str
    filter: str
    higher_is_better: bool | None
    side: str
    documents: int
    first: Score
    second: Score
    difference: float
    low: float | None
    high: float | None
    is_paired: bool
    p: float | None
    p_holm: float | None
    detectable: float | None
    margin: float | None
    up: int | None
    down: int | None
    test: str
    verdict: str
    changes: tuple[Change, ...] = ()

    @property
    def metric_title(self) -> str:
        """The metric, with its filter where there is one."""
        return self.metric if self.filter == "none" else f"{self.metric} ({self.filter})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sides, each compared with the first.

    Attributes:
        notes: what was left out or differs without deciding.
        contradicted: a sentence for each compared score that its samples, its tasks or its own counts contradict.
    """

    sides: tuple[Side, ...]
    costs: tuple[Cost, ...]
    rows: tuple[TaskComparison, ...]
    alpha: float
    notes: tuple[str, ...]
    contradicted: tuple[str, ...] = ()


def compare(sides: Sequence[Side], request: Request) -> Comparison:
    """Compare each side with the first.

    Raises:
        HarnessError: the sides do not compare; the sentence names the field and both values.
    """
    across = across_fields(request.across, sides)
    _check_tasks(sides, request)
    rows: list[TaskComparison] = []
    used: list[list[Sourced]] = [[] for _ in sides]
    notes: dict[str, None] = {}
    columns, contradicted = Columns(), dict[str, None]()
    doubts = Doubts(sides)
    for number, side in enumerate(sides[1:], start=1):
        pair = _Pair(sides[0], side, request, across, columns, doubts)
        rows += pair.rows()
        contradicted |= dict.fromkeys(pair.contradicted)
        notes |= dict.fromkeys(pair.notes)
        first, used[number] = pair.used
        used[0] = list({id(sourced): sourced for sourced in (*used[0], *first)}.values())
    if not rows:
        raise HarnessError(
            f"'{printable(sides[0].label)}' shares no metric of a task with the others; compare other records"
        )
    costs = tuple(cost_of(records) for records in used)
    rows = sorted(_corrected(rows, request.alpha), key=lambda row: not row.is_group)
    said = (*foreign_sides.notes_on(sides), *notes, *_small_differences(rows), *_single_seeds(sides, used))
    return Comparison(tuple(sides), costs, tuple(rows), request.alpha, said, tuple(contradicted))


class _Pair:
    """Two sides, task by task."""

    def __init__(
        self, first: Side, second: Side, request: Request, across: Collection[str], columns: Columns, doubts: Doubts
    ) -> None:
        self.first, self.second, self.request, self.columns = first, second, request, columns
        self.across, self.doubts = across, doubts
        self.notes: list[str] = []
        self.contradicted: list[str] = []
        self.untested: dict[str, dict[str, None]] = {}
        self._agreeing: dict[str, tuple[list[Sourced], list[Sourced]]] = {}
        self._documents: dict[tuple[str, str, str], Documents] = {}

    def rows(self) -> list[TaskComparison]:
        ours, theirs = (dict.fromkeys(s.record.task.name for s in side.records) for side in (self.first, self.second))
        both = [task for task in ours if task in theirs]
        wanted = [task for task in both if not self.request.tasks or task in self.request.tasks]
        for side, tasks in ((self.first, [*ours]), (self.second, [*theirs])):
            alone = [task for task in tasks if task not in both and not self.request.tasks]
            if alone:
                self.notes.append(f"only in {side.label}, left out: {', '.join(alone)}")
        found = [row for task in wanted for row in self._task(task)]
        self.notes += [f"not tested, {reason}: {', '.join(tasks)}" for reason, tasks in self.untested.items()]
        self._note_environment()
        return found

    @property
    def used(self) -> tuple[list[Sourced], list[Sourced]]:
        """The records of both sides that were compared, those of the tasks below groups included."""
        pairs = self._agreeing.values()
        return [s for first, _ in pairs for s in first], [s for _, second in pairs for s in second]

    def _task(self, task: str) -> list[TaskComparison]:
        first, second = self._records(task)
        ours, theirs = (
            dict.fromkeys((s.record.metric.name, s.record.metric.filter) for s in side) for side in (first, second)
        )
        shared = [metric for metric in ours if metric in theirs]
        alone = [name for name, _ in [*ours, *theirs] if not any(name == metric for metric, _ in shared)]
        if alone:
            self.notes.append(f"metrics of {task} on one side only, left out: {', '.join(dict.fromkeys(alone))}")
        names = self.request.metrics or ([MAIN_SCORE] if any(name == MAIN_SCORE for name, _ in shared) else ())
        wanted = [metric for metric in shared if not names or metric[0] in names]
        if len(wanted) < len(shared) and not self.request.metrics and ONLY_MAIN not in self.notes:
            self.notes.append(ONLY_MAIN)
        return [self._metric(task, *metric, with_changes=not place) for place, metric in enumerate(wanted)]

    def _metric(self, task: str, metric: str, filter_name: str, *, with_changes: bool) -> TaskComparison:
        first, second = (_of_metric(side, metric, filter_name) for side in self._records(task))
        scores = _score(first), _score(second)
        row = _untested(first[0], self.second.label, *scores, alpha=self.request.alpha)
        documents: Documents | None
        try:
            documents = self._documents_of(task, metric, filter_name)
        except NotRecomputableError as error:
            documents = None
            reason = str(error)
        if said := self._contradictions(first, self.first) + self._contradictions(second, self.second):
            self.contradicted += said
            return replace(row, low=None, high=None, test=NO_TEST, verdict=DOES_NOT_FOLLOW)
        if documents is None:
            self.untested.setdefault(reason, {})[task] = None
            return row
        if documents.shared:
            self.notes.append(f"{task}: {documents.shared}, the scores are those of the shared ones")
            scores = tuple(replace(s, value=v) for s, v in zip(scores, documents.scores, strict=True))  # type: ignore[assignment]
        row = _tested(row, documents, scores, self.request)
        if with_changes and not row.is_group and self.request.documents:
            found = changes(documents, first, second, self.columns, most=self.request.documents)
            row = replace(row, changes=found)
        return row

    def _contradictions(self, records: Sequence[Sourced], side: Side) -> list[str]:
        found = [(sourced.record, said) for sourced in records if (said := self.doubts.of(sourced))]
        return [printable(f"{r.task.name}, {r.metric.name}, {side.label}: {said}") for r, said in found]

    def _records(self, task: str) -> tuple[list[Sourced], list[Sourced]]:
        if task not in self._agreeing:
            self._agreeing[task] = agreeing_records(
                task, self.first, self.second, across=self.across, allow_drift=self.request.allow_drift
            )
        return self._agreeing[task]

    def _documents_of(self, task: str, metric: str, filter_name: str) -> Documents:
        key = (task, metric, filter_name)
        if key not in self._documents:
            first, second = (_of_metric(side, metric, filter_name) for side in self._records(task))
            if not first or not second:
                raise NotRecomputableError("a task below it lacks the metric")
            if first[0].record.task.group:
                self._documents[key] = self._group(first, second, metric, filter_name)
            else:
                drift = self.request.allow_drift
                self._documents[key] = paired_documents(first, second, self.columns, allow_drift=drift)
        return self._documents[key]

    def _group(self, first: list[Sourced], second: list[Sourced], metric: str, filter_name: str) -> Documents:
        values = _score(first).value, _score(second).value
        reason = NotRecomputableError("its tasks are not among the records")
        for names in self._member_names(first[0]):
            try:
                return grouped_documents([self._documents_of(name, metric, filter_name) for name in names], values)
            except NotRecomputableError as error:
                reason = error
        raise reason

    def _member_names(self, group: Sourced) -> list[list[str]]:
        """Return which tasks may be those below a group: as recorded, else those named after it, else all."""
        known = dict.fromkeys(s.record.task.name for s in self.first.records if not s.record.task.group)
        theirs = {s.record.task.name for s in self.second.records}
        there = [name for name in known if name in theirs]
        recorded = group.record.task.members
        if recorded is not None:
            return [recorded] if set(recorded) <= set(there) else []
        guesses = [[name for name in there if name.startswith(f"{group.record.task.name}_")], there]
        return [names for names in guesses if names]

    def _note_environment(self) -> None:
        both = self.used
        for name in ENVIRONMENT:
            values = [
                ", ".join(sorted({str(getattr(sourced.record.environment, name)) for sourced in used})) for used in both
            ]
            if values[0] != values[1] and UNKNOWN not in values:
                self.notes.append(f"{name}: {values[0]} for {self.first.label}, {values[1]} for {self.second.label}")


def verdict(row: TaskComparison, alpha: float) -> str:
    """Return what a comparison says, in words."""
    if row.p_holm is None:
        return row.verdict
    if row.p_holm <= alpha and row.difference:
        if row.higher_is_better is None:
            return HIGHER if row.difference > 0 else LOWER
        return BETTER if (row.difference > 0) == row.higher_is_better else WORSE
    if row.detectable is None or row.margin is None:
        return NO_DIFFERENCE if row.documents >= ENOUGH_ALIKE else TOO_FEW
    return NO_DIFFERENCE if row.detectable <= row.margin else TOO_FEW


def _untested(first: Sourced, side: str, ours: Score, theirs: Score, *, alpha: float) -> TaskComparison:
    """Return a row with values only, and an interval from two standard errors where both are known."""
    record, difference = first.record, theirs.value - ours.value
    low, high = intervals.of_difference(ours.known, theirs.known, alpha=alpha) or (None, None)
    return TaskComparison(
        task=record.task.name, is_group=record.task.group, metric=record.metric.name, filter=record.metric.filter,
        higher_is_better=record.metric.higher_is_better, side=side, documents=record.counts.docs, first=ours, second=theirs,
        difference=difference, low=low, high=high, is_paired=False, p=None, p_holm=None, detectable=None, margin=None,
        up=None, down=None, test=UNPAIRED if low is not None else NO_TEST, verdict=NOT_TESTED,
    )  # fmt: skip


def _tested(row: TaskComparison, documents: Documents, scores: tuple[Score, Score], request: Request) -> TaskComparison:
    found = statistics.compare(documents.first, documents.second, alpha=request.alpha)
    # Of a score that is no mean the documents' mean is off by its bias; the interval lies around the score itself.
    difference = documents.scores[1] - documents.scores[0]
    shift = difference - found.difference
    low, high = (None if end is None else end + shift for end in (found.low, found.high))
    if low is not None and high is not None:
        low, high = intervals.within_difference(low, high, scores[0].known, scores[1].known)
    changed = documents.second - documents.first
    least = statistics.ROUNDING * (abs(documents.first) + abs(documents.second))
    margin = request.margin
    if margin is None:
        between = all(side.min() >= 0 and side.max() <= 1 for side in (documents.first, documents.second))
        margin = MARGIN if between else MARGIN_DEVIATIONS * float(documents.first.std())
    return replace(
        row, documents=len(documents.keys), first=scores[0], second=scores[1], difference=difference,
        low=low, high=high, is_paired=True, p=found.p, detectable=found.detectable, margin=margin,
        up=int((changed > least).sum()), down=int((changed < -least).sum()), test=found.test,
    )  # fmt: skip


def _corrected(rows: Sequence[TaskComparison], alpha: float) -> list[TaskComparison]:
    """Return the rows with Holm's p and verdict. A family: all tasks and sides of one metric, groups apart."""
    families: dict[tuple[str, str, bool], list[int]] = {}
    for place, row in enumerate(rows):
        if row.p is not None:
            families.setdefault((row.metric, row.filter, row.is_group), []).append(place)
    corrected = list(rows)
    for places in families.values():
        p_values = statistics.holm([rows[place].p or 0.0 for place in places])
        for place, p in zip(places, p_values, strict=True):
            corrected[place] = replace(rows[place], p_holm=p)
    return [replace(row, verdict=verdict(row, alpha)) for row in corrected]


def _small_differences(rows: Sequence[TaskComparison]) -> list[str]:
    """Return a note on differences that are shown, and by their whole interval too small to matter."""
    small = [f"{row.task} {row.metric_title}" for row in rows if is_small(row)]
    return [f"shown, but smaller than the margin: {', '.join(small)}"] if small else []


def is_small(row: TaskComparison) -> bool:
    """Return whether a difference is shown, and its whole interval lies within the margin."""
    return (
        row.verdict in {BETTER, WORSE, HIGHER, LOWER}
        and None not in (row.low, row.high, row.margin)
        and max(abs(row.low or 0.0), abs(row.high or 0.0)) < (row.margin or 0.0)
    )


def _single_seeds(sides: Sequence[Side], used: Sequence[Sequence[Sourced]]) -> list[str]:
    """Return a note on each side that was trained with one seed only."""
    single = [
        side.label
        for side, records in zip(sides, used, strict=True)
        if any(s.record.cost.tokens_trained for s in records) and len({s.record.seeds.random for s in records}) == 1
    ]
    return [f"trained with one seed, so how scores vary over seeds is not known: {', '.join(single)}"] if single else []


def _of_metric(side: Sequence[Sourced], metric: str, filter_name: str) -> list[Sourced]:
    """Return the records of one metric, by seed."""
    found = [s for s in side if (s.record.metric.name, s.record.metric.filter) == (metric, filter_name)]
    return sorted(found, key=lambda sourced: (sourced.record.seeds.random or 0, sourced.record.key()))


def _score(seeds: Sequence[Sourced]) -> Score:
    records = [sourced.record for sourced in seeds]
    values = [record.value for record in records if record.value is not None]
    errors = [record.stderr for record in records if record.stderr is not None]
    return Score(
        value=averages.fmean(values),
        stderr=averages.fmean(errors) if errors else None,
        by_seed=tuple((record.seeds.random, value) for record, value in zip(records, values, strict=True)),
        deviation=averages.stdev(values) if len(values) > 1 else None,
        known=intervals.of_seeds(records) or Estimate(averages.fmean(values), None),
    )


def _check_tasks(sides: Sequence[Side], request: Request) -> None:
    records = [sourced.record for side in sides for sourced in side.records]
    for wanted, known, flag in (
        (request.tasks, {record.task.name for record in records}, "tasks"),
        (request.metrics, {record.metric.name for record in records}, "metrics"),
    ):
        for name in wanted:
            if name not in known:
                raise HarnessError(
                    f"--{flag} names '{printable(name)}', of which there is no record; {suggestion(name, known)}"
                )
