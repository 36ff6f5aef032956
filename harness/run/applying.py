"""Apply a method once: in a folder named by everything that decides its result, with the guards that keep it honest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import HarnessError
from harness.folders import cache_folder, write_atomic
from harness.methods.method import Baseline, Method
from harness.methods.options import resolved_options
from harness.names import printable, safe_name
from harness.progress import say
from harness.run.changes import _State
from harness.run.environment import environment, measured_peak
from harness.seeds import seed_everything

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.models.source import ModelSource
    from harness.plugins import Plugin

# Written last into a work folder: without it, what a killed run left there is removed.
FINISHED = ".finished.json"


@dataclass(frozen=True)
class Applied:
    """The LM to evaluate, and what making it took; ``digest`` is over its tensors, None for the untouched model."""

    lm: LM
    workdir: Path | None = None
    seconds: float = 0.0
    peak_bytes: int | None = None
    reused: bool = False
    weights_changed: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    digest: str | None = None


def apply_method(
    method: Method, lm: LM, *, plugin: Plugin | None, source: ModelSource, seed: int, use_cache: bool = True
) -> Applied:
    """Return what ``method`` makes of ``lm``; an identical earlier run's work is found and not done again.

    Args:
        method: with its options.
        lm: given away: the method may change it in place.
        plugin: where the method comes from.
        source: what the model is.
        seed: for the method, and for every global generator before it starts.
        use_cache: False forgets what an earlier run left.

    Raises:
        HarnessError: the method changed nothing and does not declare so, or returned something that is no LM.
    """
    if isinstance(method, Baseline):
        return Applied(lm)
    device = str(lm.device)
    workdir = work_folder(method, plugin=plugin, source=source, seed=seed, device=device)
    unchanged = bool(getattr(method, "leaves_model_unchanged", False))
    before = _State.of(lm)
    with _locked(workdir):
        finished = _prepare(workdir, use_cache=use_cache)
        if finished is not None and not unchanged:
            say(
                f"'{method.name}' was applied before with exactly these inputs; its result is reused (--no-cache redoes it)"
            )
        seed_everything(seed)
        started = time.monotonic()
        with measured_peak(device) as peak:
            after_lm = _called(method, lm, plugin=plugin, seed=seed, workdir=workdir)
        costs = finished or {"seconds": time.monotonic() - started, "peak_bytes": peak.bytes}
        after = _State.of(after_lm)
        changed = after.weights_changed_since(before)
        if not unchanged and not changed:
            raise HarnessError(
                f"method '{printable(method.name)}' left every tensor and the tokenizer as they were, so its score would "
                "be the baseline's; if that is meant, it has to declare leaves_model_unchanged"
            )
        report = _report(workdir)
        if finished is None:
            write_atomic(workdir / FINISHED, json.dumps(costs))
    return Applied(
        after_lm,
        workdir,
        costs["seconds"],
        costs["peak_bytes"],
        finished is not None,
        max(changed, 0),
        report,
        after.digest(),
    )


def work_folder(method: Method, *, plugin: Plugin | None, source: ModelSource, seed: int, device: str) -> Path:
    """Return the folder of a method's work, named by the digest of everything that decides its result."""
    from harness.models.identity import tokenizer_digest

    versions = environment("cpu").model_dump(include={"torch", "transformers", "peft", "bitsandbytes", "harness"})
    decides = {
        "plugin": [plugin.name, plugin.distribution, plugin.version, plugin.code_digest] if plugin else None,
        "method": method.name,
        "options": resolved_options(method),
        "inputs": fingerprint(method),
        "model": [source.name, source.digest, source.dtype, source.quantization, source.gguf_file, source.lm_args],
        "adapter": [source.peft, source.attn_implementation],
        "tokenizer": tokenizer_digest(source.load_tokenizer()),
        "seed": seed,
        "device": device.split(":")[0],
        "versions": versions,
        "training": hashlib.sha256((Path(__file__).parents[1] / "methods" / "training.py").read_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
    prefix = f"{plugin.name}-{method.name}" if plugin else method.name
    return cache_folder() / "methods" / f"{safe_name(prefix)}-{digest}"


def fingerprint(method: Method) -> str:
    """Return the digest of what the method's options name: its own account, or the content of every path option.

    Empty when the options name nothing.

    Raises:
        HarnessError: the method finds its inputs unusable.
    """
    own = getattr(method, "fingerprint", None)
    if own is not None:
        return str(own())
    paths = {o.name: getattr(method, o.name, None) for o in dataclasses.fields(method)}  # type: ignore[arg-type]
    named = [f"{name}={_content_digest(path)}\n" for name, path in paths.items() if isinstance(path, Path)]
    return hashlib.sha256("".join(named).encode()).hexdigest() if named else ""


def _prepare(workdir: Path, *, use_cache: bool) -> dict[str, Any] | None:
    """Return the costs a finished run noted in ``workdir``, or empty the folder and return None."""
    try:
        finished: dict[str, Any] = json.loads((workdir / FINISHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        finished = {}
    if finished and use_cache:
        return finished
    if workdir.exists():
        shutil.rmtree(workdir)
    workdir.mkdir(parents=True)
    return None


@contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Let one process at a time work in a folder; the next one waits, and then finds the work done."""
    from filelock import FileLock, Timeout

    workdir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workdir.parent / f".{workdir.name}.lock")
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

    owner = f"method '{printable(method.name)}'"
    if plugin is not None:
        owner += f" of plugin '{printable(plugin.name)}' ({printable(plugin.distribution)} {printable(plugin.version)})"
    try:
        after: Any = method.apply(lm, seed=seed, workdir=workdir)
    except (HarnessError, KeyboardInterrupt):
        raise
    except BaseException as error:
        cause = f"{type(error).__name__}: {printable(error)}".rstrip(": ")
        raise HarnessError(f"{owner} failed: {cause} (--debug shows where)") from error
    if not isinstance(after, LM):
        raise HarnessError(f"{owner} returned {type(after).__name__} from apply, where an LM is due")
    return of(after)


def _report(workdir: Path) -> dict[str, Any]:
    """Return the method's own report. Raises ``HarnessError`` when no record can hold it."""
    path = workdir / "report.json"
    if not path.is_file():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:
        raise HarnessError(f"the method's report.json in {printable(workdir)} is not valid JSON: {error}") from error
    if not isinstance(report, dict):
        raise HarnessError(f"the method's report.json in {printable(workdir)} is no JSON object")
    return report


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def _content_digest(path: Path) -> str:
    from harness.models.identity import digest_files

    if not path.exists():
        raise HarnessError(f"no file or folder at '{printable(path)}'")
    return digest_files([path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()])
