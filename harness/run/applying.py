"""Apply a method once: in a folder named by everything that decides its result, with the guards that keep it honest."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import Failed, HarnessError
from harness.folders import cache_folder, write_atomic
from harness.methods import parts
from harness.methods.method import Baseline, Method
from harness.names import described, printable
from harness.progress import say
from harness.redaction import file_name
from harness.removal import WORK, refuse_links, remove
from harness.run.changes import LMState
from harness.run.environment import measured_peak
from harness.run.identity import Deciding
from harness.run.surroundings import undisturbed
from harness.seeds import seed_everything

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.plugins import Plugin
    from harness.run.preparing import Chosen

# Written last into a work folder: without it, what a killed run left there is removed.
FINISHED = ".finished.json"
REPORT = "report.json"


@dataclass(frozen=True)
class Applied:
    """The LM to evaluate, and what making it took.

    ``digest`` is over its tensors and the files of its work folder, None for the untouched model.
    """

    lm: LM
    workdir: Path | None = None
    seconds: float = 0.0
    peak_bytes: int | None = None
    reused: bool = False
    weights_changed: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    digest: str | None = None


def apply_to(chosen: Chosen, lm: LM) -> Applied:
    """Return what the method of a run makes of ``lm``; an identical earlier run's work is found and not done again.

    Args:
        chosen: method and model; the first of the run's seeds is the method's, and seeds every global generator before
            it starts. ``no_cache`` forgets what an earlier run left.
        lm: given away: the method may change it in place.

    Raises:
        HarnessError: the method changed nothing and does not declare so, or returned something that is no LM; a link is
            where its work folder should be.
        Failed: the disk refuses.
    """
    method, seed = chosen.method, chosen.run.seeds[0] or 0
    if isinstance(method, Baseline):
        return Applied(lm)
    device = str(lm.device)
    workdir = work_folder(chosen, device=device)
    unchanged = bool(getattr(method, "leaves_model_unchanged", False))
    before = LMState.of(lm)
    refuse_links(workdir, _lock_of(workdir))
    with _telling(workdir), _locked(workdir):
        finished = _prepare(workdir, use_cache=not chosen.run.no_cache)
        if finished is not None and not unchanged:
            say(
                f"'{method.name}' was applied before with exactly these inputs; its result is reused (--no-cache redoes it)"
            )
        seed_everything(seed)
        started = time.monotonic()
        with measured_peak(device) as peak:
            after_lm = _called(method, lm, plugin=chosen.plugin, seed=seed, workdir=workdir)
        costs = finished or {"seconds": time.monotonic() - started, "peak_bytes": peak.bytes}
        with _blaming(method, chosen.plugin, "left a model that cannot be used"):
            if hasattr(after_lm.model, "eval"):
                after_lm.model.eval()  # dropout is for training, and a part may be left in it where the whole is not
            after = LMState.of(after_lm)
        changed = after.weights_changed_since(before)
        if not changed and not unchanged:
            raise HarnessError(
                f"method '{printable(method.name)}' left every tensor and the tokenizer as they were, so its score would "
                "be the baseline's; if that is meant, it has to declare leaves_model_unchanged"
            )
        report, digest = _report(workdir), _digest(after, workdir)
        if finished is None:
            write_atomic(workdir / FINISHED, json.dumps(costs))
        parts.forget(workdir)  # not before: a folder without that note is emptied
    return Applied(
        after_lm,
        workdir,
        costs["seconds"],
        costs["peak_bytes"],
        finished is not None,
        max(changed, 0),
        report,
        digest,
    )


def earlier_work(chosen: Chosen, *, device: str) -> dict[str, Any] | None:
    """Return the costs of an earlier run of a method with exactly these inputs, whose work would be reused; None without one."""
    return _finished(work_folder(chosen, device=device))


def work_folder(chosen: Chosen, *, device: str) -> Path:
    """Return the folder of a method's work, named by the digest of everything that decides its result."""
    prefix = f"{chosen.plugin.name}-{chosen.method.name}" if chosen.plugin else chosen.method.name
    digest = Deciding(chosen, device=device).digest("work")[:16]
    return cache_folder() / "methods" / f"{file_name(prefix)}-{digest}"


def _digest(after: LMState, workdir: Path) -> str:
    """Return one digest of an LM and of what its method wrote, from which it may answer; costs and report say nothing new."""
    from harness.models.identity import digest_files

    said = {workdir / FINISHED, workdir / REPORT}
    files = [path for path in workdir.rglob("*") if path.is_file() and path not in said]
    return hashlib.sha256(f"{after.digest()} {digest_files(files, below=workdir)}".encode()).hexdigest()[:16]


def _prepare(workdir: Path, *, use_cache: bool) -> dict[str, Any] | None:
    """Return the costs a finished run noted in ``workdir``, or empty the folder and return None.

    What an interrupted run did in parts is kept beside the folder, but where nothing of an earlier run is to be used.
    """
    finished = _finished(workdir)
    if finished and use_cache:
        return finished
    if not use_cache:
        parts.forget(workdir)
    remove(workdir, below=workdir.parent, named=WORK, folder=True)
    workdir.mkdir(parents=True)
    return None


def _finished(workdir: Path) -> dict[str, Any] | None:
    try:
        finished: dict[str, Any] = json.loads((workdir / FINISHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return finished or None


@contextmanager
def _telling(workdir: Path) -> Iterator[None]:
    """Make a sentence of what the disk says of a work folder; what a method says of its own files is one by then."""
    try:
        yield
    except OSError as error:
        raise Failed(f"could not use the work folder '{printable(workdir)}': {error.strerror or error}") from error


def _lock_of(workdir: Path) -> Path:
    return workdir.parent / f".{workdir.name}.lock"


@contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Let one process at a time work in a folder; the next one waits, and then finds the work done."""
    from filelock import FileLock, Timeout

    workdir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock_of(workdir))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("another run is applying the same method with the same inputs; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _called(method: Method, lm: LM, *, plugin: Plugin | None, seed: int, workdir: Path) -> LM:
    """Return what the method makes of ``lm``; whatever its own code raises becomes one sentence."""
    from lm_eval.api.model import LM

    from harness.models.lm import of

    owner = _owner(method, plugin)
    with _blaming(method, plugin, "failed"):
        with undisturbed(owner):
            after: Any = method.apply(lm, seed=seed, workdir=workdir)
        after = of(after) if isinstance(after, LM) else after
    if not isinstance(after, LM):
        raise HarnessError(f"{owner} returned {type(after).__name__} from apply, where an LM is due")
    return after


def _owner(method: Method, plugin: Plugin | None) -> str:
    owner = f"method '{printable(method.name)}'"
    if plugin is None:
        return owner
    return (
        f"{owner} of plugin '{printable(plugin.name)}' ({printable(plugin.distribution)} {printable(plugin.version)})"
    )


@contextmanager
def _blaming(method: Method, plugin: Plugin | None, what: str) -> Iterator[None]:
    """Turn whatever a method's own code raises, ``SystemExit`` included, into one sentence that names it."""
    try:
        yield
    except (HarnessError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise HarnessError(f"{_owner(method, plugin)} {what}: {described(error)}") from error


def _report(workdir: Path) -> dict[str, Any]:
    """Return the method's own report. Raises ``HarnessError`` when no record can hold it."""
    path = workdir / REPORT
    if not path.is_file():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        json.dumps(report, allow_nan=False, ensure_ascii=False).encode()  # 1e999 is infinite, half a character no text
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"the method's report.json in {printable(workdir)} is not valid JSON: {error}") from error
    if not isinstance(report, dict):
        raise HarnessError(f"the method's report.json in {printable(workdir)} is no JSON object")
    return report


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")
