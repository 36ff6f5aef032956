"""The measurements of ``durability.py``: each takes how much to do, an empty folder and finished parts, and returns figures."""

from __future__ import annotations

import errno
import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bad_lines import CHANGES, changed, wrong_with
from durability_parts import Parts
from fault_tools import Kills, Writer, examine, fail_at, kill_loop, points
from fault_writers import PLAIN_WRITERS, harness_ledger
from figures import Figure
from forked_runs import FORWARD, ForkedRuns
from killed_runs import METHOD, Aftermath, KilledRuns, command
from made_records import made
from rendered_bytes import digests, make_languages
from tiny_models import build_model
from writer_checks import ERRORS, each_deadly_call, each_failing_call, no_file_yet, torn_file, with_old

from harness.folders import write_atomic
from harness.records import ledger

OURS = "harness"
SEED = 20_261_127
LARGE = 4_000_000
# Cases of damaged files in one part.
CASES = 500
# A run that takes longer hangs, even where eight others share the processor.
PATIENCE = 3600.0
TOPIC_CALLS = "A failure at each system call of a write"


def kills(n: int, folder: Path, parts: Parts) -> list[Figure]:
    """Kill writers: eight of ten at random moments, one within a write, one while writing lines of 4 MB."""
    topic, claim = (
        "Writers killed with SIGKILL while they append",
        "acknowledged records lost, lines torn, records doubled",
    )
    figures = []
    for name, writer in ((OURS, harness_ledger), *PLAIN_WRITERS.items()):
        total = _killed(writer, n if name == OURS else max(n // 20, 10), folder, name=name, parts=parts)
        wrong = (total.lost, total.unreadable, total.doubled)
        note = f"{total.acknowledged:,} acknowledged" + (
            f", {total.healed} torn ends set aside" if total.healed else ""
        )
        value, target = ", ".join(f"{count:,}" for count in wrong), "0, 0, 0" if name == OURS else ""
        figures.append(Figure(topic, claim, name, value, total.kills, sum(wrong), target, SEED, note))
    return figures


def _killed(writer: Writer, n: int, folder: Path, *, name: str, parts: Parts) -> Kills:
    """Kill ``n`` times, with a new file for every 25 kills."""
    plan: list[tuple[int, dict[str, Any]]] = []
    for count, settings in (
        (n - n // 5, {}),
        (n // 10, {"in_write": True}),
        (n // 10, {"size": LARGE, "longest": 0.8}),
    ):
        step = 5 if "size" in settings else 25
        plan += [(min(step, count - start), settings) for start in range(0, count, step)]

    def killed(part: str) -> dict[str, int]:
        number = int(part.rpartition(" ")[2])
        count, settings = plan[number]
        found = Kills()
        for times in (1, 10, 100):  # where others use the machine, a writer begins late
            slower = settings | {"longest": times * settings.get("longest", 0.15)}
            found = kill_loop(writer, folder / f"{number}.jsonl", n=count, seed=SEED + number, **slower)
            for file in folder.iterdir():
                file.unlink()
            if found.acknowledged or not found.is_clean:
                break
        return asdict(found)

    return sum((Kills(**found) for found in parts.each([f"{name} {k}" for k in range(len(plan))], killed)), Kills())


def writers(n: int, folder: Path, _parts: Parts) -> list[Figure]:
    """Let ``n`` processes append 500 records each to one file, lines of 1 kB to 3 MB."""
    each, path, context = 500 if n >= 8 else 50, folder / "x.jsonl", multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_many, args=(path, number, each)) for number in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    total = examine(path, {writer * each + number for writer in range(n) for number in range(each)})
    topic = f"{n} processes that append to one file at once"
    failures = [process.exitcode for process in processes if process.exitcode]
    wrong = total.lost + total.unreadable + total.doubled + len(failures)
    value = f"{total.acknowledged - total.lost:,} of {n * each:,}"
    return [Figure(topic, "records there, each once and whole", OURS, value, n * each, wrong, f"{n * each:,}", SEED)]


def _append_many(path: Path, writer: int, count: int) -> None:
    draw = random.Random(SEED + writer)
    for number in range(count):
        size = 3_000_000 if number % 100 == 50 else int(10 ** draw.uniform(2, 5))
        ledger.append(path, [made(writer * count + number, size=size)])


def syscalls(n: int, folder: Path, parts: Parts) -> list[Figure]:
    """Fail, or be killed, in each system call of an append and of a file that is written whole; and of a run, in ``n``."""
    makes = {make.__name__: make for make in (with_old, no_file_yet, torn_file)}
    checks = {check.__name__: check for check in (each_failing_call, each_deadly_call)}

    def checked(part: str) -> list[list[str]]:
        make, check = part.split(" ")
        place = folder / f"{make}-{check}"
        place.mkdir()
        return list(checks[check](harness_ledger, place, make=makes[make]))

    failing, deadly = (
        [trial for trials in parts.each([f"{make} {check}" for make in makes], checked) for trial in trials]
        for check in checks
    )
    figures = [
        _counted(TOPIC_CALLS, "appends damaged by a call that fails (ENOSPC, EIO, EINTR; once, for good)", failing),
        _counted(TOPIC_CALLS, "appends damaged by a kill in a call", deadly),
        _counted(TOPIC_CALLS, "whole files damaged by a call that fails", list(_failing_files(folder))),
    ]
    return [*figures, _failing_runs(n, folder, parts)] if n else figures


def _counted(topic: str, claim: str, trials: Sequence[Sequence[str]], *, seed: int | None = None) -> Figure:
    wrong = [faults for faults in trials if faults]
    note = "; ".join(faults[0] for faults in wrong[:3])[:500]
    return Figure(topic, claim, OURS, f"{len(wrong):,}", len(trials), len(wrong), "0", seed, note)


def _failing_files(folder: Path) -> Iterator[list[str]]:
    new, path = b"new" * 1000, folder / "whole" / "file"
    for name, k in points(lambda: write_atomic(path, new)):
        for code, for_good in ((code, for_good) for code in ERRORS for for_good in (False, True)):
            path.write_bytes(b"old")
            allowed = {b"old", new}
            with fail_at(name, k, code, for_good=for_good):
                try:
                    write_atomic(path, new)
                    allowed = {new}
                except OSError:
                    pass
            litter = [file for file in path.parent.iterdir() if file != path]
            for file in litter:
                file.unlink()
            is_bad = path.read_bytes() not in allowed or (litter and not (name == "os.unlink" and for_good))
            yield [f"{name} {k} {errno.errorcode[code]}"] if is_bad else []


def _failing_runs(n: int, folder: Path, parts: Parts) -> Figure:
    """Let calls of a run fail, then run the same command to its end."""
    with _killed_runs(folder) as killed:
        counts = {name: killed.whole.counts[name] for name in ("os.fsync", "os.replace", "os.unlink")}
        every = [
            (name, k, for_good) for name in counts for k in range(1, counts[name] + 1) for for_good in (False, True)
        ]
        chosen = random.Random(SEED).sample(every, min(n, len(every)))

        def failed(part: str) -> list[str]:
            name, k, for_good = chosen[int(part.split(" ")[1])]
            return _faults_of(lambda: killed.survive_failure(name, k, errno.ENOSPC, for_good=for_good), f"{name} {k}")

        trials = parts.each([f"failing {number} of {len(every)}" for number in range(len(chosen))], failed)
    return _counted(
        TOPIC_CALLS, "runs that a failing call ends with a traceback or with other records", trials, seed=SEED
    )


def _faults_of(trial: Callable[[], Aftermath], what: str) -> list[str]:
    """Return what became of a trial that should have ended clean; a run that hangs is a fault, and ends no measurement."""
    try:
        aftermath = trial()
    except AssertionError as error:
        return [f"{what}: {error}"]
    return [] if aftermath.is_clean else [f"{what}: {aftermath}"]


def runs(n: int, folder: Path, parts: Parts) -> list[Figure]:
    """Kill ``n`` runs once each."""
    return _interrupted(n, 1, folder, "Runs killed with SIGKILL, then started again", parts)


def resumes(n: int, folder: Path, parts: Parts) -> list[Figure]:
    """Kill ``n`` runs, and kill each again while it goes on."""
    return _interrupted(n, 2, folder, "Runs killed again while they went on", parts)


def _interrupted(n: int, times: int, folder: Path, topic: str, parts: Parts) -> list[Figure]:
    with _killed_runs(folder, *METHOD) as killed:
        plan = killed.points(random.Random(SEED + times), n * times)

        def survived(part: str) -> dict[str, Any]:
            start = int(part.split(" ")[1]) * times
            chosen = tuple(plan[start : start + times])
            try:
                return asdict(killed.survive(*chosen))
            except AssertionError as error:  # it hangs
                return asdict(Aftermath(chosen, ("hanging",), faults=[str(error)]))

        found = parts.each([f"kill {number}" for number in range(n)], survived)
        trials = [Aftermath(**trial) for trial in found]
    bad = [trial for trial in trials if not trial.is_clean]
    stages = sorted({stage for trial in trials for stage in trial.stages})
    note = "; ".join([f"killed while {', '.join(stages)}", *(str(trial) for trial in bad[:2])])[:600]
    claim = "ended with the records of an undisturbed run"
    figures = [Figure(topic, claim, OURS, f"{n - len(bad)} of {n}", n, len(bad), f"{n} of {n}", SEED + times, note)]
    counts = [sum(getattr(trial, name) for trial in trials) for name in ("lost", "torn", "doubled", "differing")]
    claim, value = "records lost, torn, doubled, differing", ", ".join(map(str, counts))
    figures.append(Figure(topic, claim, OURS, value, n, sum(counts), "0, 0, 0, 0", SEED + times))
    largest = max(trial.change for trial in trials)
    claim = "largest change of a log-likelihood"
    figures.append(Figure(topic, claim, OURS, f"{largest:.1g}", n, int(largest > 1e-4), "≤ 1e-4", SEED + times))
    note = f"{sum(trial.reused for trial in trials):,} answers were taken from before"
    claim = f"most passes of the model done again, of {killed.whole.counts[FORWARD]}"
    figures.append(Figure(topic, claim, OURS, str(max(t.repeated for t in trials)), n, None, "", SEED + times, note))
    litter = sum(trial.litter for trial in trials)
    return [*figures, Figure(topic, "temporary files left", OURS, str(litter), n, None, "", SEED + times)]


@contextmanager
def _killed_runs(folder: Path, *flags: str) -> Iterator[KilledRuns]:
    """Give a command that was run once to its end, on a tiny model, and can be killed."""
    model = build_model(folder / "tiny")
    with ForkedRuns(folder / "runs", command(model, *METHOD), patience=PATIENCE) as started:
        yield KilledRuns(started, folder / "killed", command(model, *flags))


def fuzz(n: int, folder: Path, parts: Parts) -> list[Figure]:
    """Damage a file of three records in one to five places, read it, and append to it."""
    starts = range(0, n, CASES)
    found = parts.each(
        [f"cases from {start}" for start in starts],
        lambda part: _damaged(int(part.split(" ")[2]), n, folder),
    )
    wrong, crashes = ([text for both in found for text in both[place]] for place in (0, 1))
    topic = "Files with damaged bytes"
    return [
        Figure(topic, claim, OURS, f"{len(texts)}", n, len(texts), "0", SEED, "; ".join(texts[:3])[:500])
        for claim, texts in (("wrong numbers read, or neighbours lost", wrong), ("readers that crashed", crashes))
    ]


def _damaged(start: int, n: int, folder: Path) -> tuple[list[str], list[str]]:
    """Return what was wrong with the cases from ``start`` on, and which of them ended a reader."""
    draw = random.Random(SEED + start)
    wrong: list[str] = []
    crashes: list[str] = []
    for case in range(start, min(start + CASES, n)):
        changes = [
            (draw.choice(sorted(CHANGES)), draw.randrange(10_000), draw.randbytes(draw.randrange(7)))
            for _ in range(draw.randint(1, 5))
        ]
        try:
            wrong += [f"case {case}: {text}" for text in wrong_with(changed(changes), folder / "file.jsonl")]
        except Exception as error:  # what must not happen is what is counted here
            crashes.append(f"case {case}: {type(error).__name__}: {error}")
    return wrong, crashes


def environments(n: int, folder: Path, _parts: Parts) -> list[Figure]:
    """Append and render in six languages and time zones."""
    make_languages(folder)
    found = digests(folder)
    different = len(set(found.values())) - 1
    topic, claim = "Six languages and time zones", "ledger, Markdown and HTML have identical bytes"
    value = f"{len(found)} environments, {different + 1} digest"
    return [Figure(topic, claim, OURS, value, len(found), different, "6 environments, 1 digest")]
