"""What a method does to the process is put back and told, and a method that fails leaves word of it."""

from __future__ import annotations

import json
import locale
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.run.surroundings import undisturbed

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]

NUDGE = "lm.model.model.norm.weight.data.mul_(self.amount)\n"
# What a method may do, and how the line calls it.
CHANGES = {
    "import os; os.chdir('/')": "the working folder (to /)",
    "import os; os.umask(0o777)": "the umask (to 777)",
    "import os; os.environ['HOME'] = '/nowhere'; os.environ['A_NEW_ONE'] = '1'": "the environment (A_NEW_ONE, HOME)",
    "import torch; torch.set_default_dtype(torch.float64)": "torch's default dtype (to torch.float64)",
    "import torch; torch.set_default_device('meta')": "torch's default device",
    "import torch; torch.set_grad_enabled(False)": "torch's grad mode",
    "import torch; torch.set_num_threads(3)": "torch's threads (to 3)",
    "import torch; torch.use_deterministic_algorithms(True)": "torch's arithmetic",
    "import torch; torch.backends.mkldnn.set_flags(False)": "torch's arithmetic",
    "import torch; torch.autocast('cpu').__enter__()": "torch's arithmetic",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)": "signal handlers",
    "import signal; signal.alarm(1000)": "the alarm",
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])": "blocked signals",
    "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (99, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))": (
        "limits of the system (RLIMIT_NOFILE)"
    ),
    "import sys; sys.path.insert(0, '/nowhere')": "the import path",
    "import sys; sys.setrecursionlimit(123456)": "settings of Python",
    "import warnings; warnings.simplefilter('error')": "warnings",
    "import logging; logging.disable(logging.CRITICAL)": "logging",
    "import logging; logging.getLogger().addHandler(logging.NullHandler())": "logging",
    "import logging; logging.getLogger('transformers').setLevel(1)": "logging",
    "import locale; locale.setlocale(locale.LC_ALL, 'C')": "the locale",
    "import numpy; numpy.seterr(all='raise')": "numpy's errors",
    "import sys; sys.stdout = None": "standard output",
    "import sys; sys.stdout.close()": "standard output",
    "import os; os.close(1)": "standard output",
    "import os; os.dup2(os.open('/dev/null', os.O_WRONLY), 2)": "standard error",
    "import os; os.closerange(1, 3)": "standard output and standard error",
    "import sys; sys.stderr.close()": "standard error",
}


LEAVING = """
import sys
from harness.models.causal import CausalLM

class Leaving(CausalLM):
    def loglikelihood(self, requests, *args, **kwargs):
        sys.exit(0)

lm.model.model.norm.weight.data.mul_(self.amount)
return Leaving(lm.model, lm.tokenizer, **lm.settings)
"""


def state() -> list[Any]:
    """Return what the process is to code in it."""
    mask = os.umask(0)
    os.umask(mask)
    streams = [(number, os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)]
    return [
        os.getcwd(), mask, dict(os.environ), torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(),
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.mkldnn.enabled,
        torch.is_autocast_enabled("cpu"), signal.getsignal(signal.SIGTERM), signal.getitimer(signal.ITIMER_REAL)[0],
        signal.pthread_sigmask(signal.SIG_BLOCK, ()), sys.path[:], sys.getrecursionlimit(), list(warnings.filters),
        logging.root.manager.disable, logging.root.handlers[:], logging.getLogger("transformers").level, streams,
        locale.setlocale(locale.LC_ALL), resource.getrlimit(resource.RLIMIT_NOFILE),
    ]  # fmt: skip


@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize("ending", ["", "raise RuntimeError('on purpose')"])
def test_what_code_changes_for_all_is_put_back_and_told(
    statement: str, ending: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case global_state: each kind of state, after code that ends well and after code that raises."""
    torch.use_deterministic_algorithms(False)  # the first call imports a part of torch that sets a variable for itself
    # As in a process of its own: pytest's streams have no file below them.
    opened = [os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2)]
    for name, stream in zip(("stdout", "stderr"), opened, strict=True):
        monkeypatch.setattr(sys, name, stream)
    before = state()
    with suppress(RuntimeError), undisturbed("method 'invented'"):
        exec(f"{statement}\n{ending}", {})
    assert state() == before
    assert [sys.stdout, sys.stderr] == opened or ".close()" in statement
    print("still heard", flush=True)
    said = capfd.readouterr()
    line = f"method 'invented' changed {CHANGES[statement]} for the whole process; put back as before\n"
    assert (said.out, said.err) == ("still heard\n", line)


def test_code_that_changes_nothing_is_told_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with undisturbed("nothing"):
        logging.getLogger("a logger of a library imported late").setLevel(3)
        torch.rand(3).sum()
    assert capfd.readouterr().err == ""


@pytest.mark.xdist_group("runs")
@pytest.mark.parametrize("move", ["os.chdir('/'); os.umask(0o777)", "os.close(1); os.close(2); sys.stdout.close()"])
def test_the_records_of_a_method_that_changes_the_process_are_where_the_command_says(
    move: str, make_method: Callable[..., str], forked: Command, records: Records, tiny_model: Path, own_tasks: Path
) -> None:
    """Case global_state: a relative output folder, a mask that makes unreadable files, closed streams."""
    plugin = make_method(f"import os, sys\n{NUDGE}{move}\nreturn lm")
    words = ["eval", "--model_args", f"pretrained={tiny_model}", "--include_path", own_tasks, "--tasks", "colours"]
    done = forked(*words, "--plugin", plugin, "--with_baseline", "--output_path", "out").wait()
    assert done.code == 0, done.err
    assert sorted(record["method"]["name"] for record in records(Path("out"))) == ["baseline", "invented"]
    assert "2 records in out/baseline-" in done.out and "invented" in done.out
    assert done.err.count(" for the whole process; put back as before") == 1
    assert all(path.stat().st_mode & 0o400 for path in Path("out").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("raise RuntimeError('no memory left')", "RuntimeError: no memory left"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_a_method_that_fails_after_the_baseline_leaves_word_of_it(
    end: str, cause: str, make_method: Callable[..., str], evaluate: Command, records: Records
) -> None:
    """Case global_state: exit status 1 where records were made, 2 where nothing was; what there is is named."""
    plugin = make_method(f"{NUDGE}{end}")
    outcome = evaluate("--plugin", plugin, "--with_baseline")
    assert outcome.code == 1, outcome.err
    assert cause in outcome.sentence
    [baseline] = records(Path("out"))
    assert f"what was asked before is kept ({baseline['run']})" in outcome.sentence
    assert f"1 records in out/{baseline['run']}" in outcome.out
    notes = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in Path("out").glob("*/run.json")}
    failed = notes.pop(next(name for name in notes if name.startswith("invention")))
    assert (failed["status"], [note["status"] for note in notes.values()]) == ("failed", ["finished"])
    assert cause in failed["error"]
    assert evaluate("--plugin", plugin, "--output_path", "elsewhere").code == 2
    assert list(Path("elsewhere").glob("*")) == []


@pytest.mark.parametrize(
    ("members", "body", "sentence"),
    [
        ("def fingerprint(self): raise SystemExit(0)", "", "method 'invented' fails over its inputs: SystemExit: 0"),
        ("def fingerprint(self): return {}['x']", "", "method 'invented' fails over its inputs: KeyError: 'x'"),
        (
            "def __post_init__(self): raise OSError(5, 'broken')",
            "",
            "method 'invented' fails over its options: OSError: [Errno 5]",
        ),
        ("", "lm.model.lm_head = None\nreturn lm", "(third-party-invention 1.0) left a model that cannot be used: "),
        ("", LEAVING, "task 'colours' failed: SystemExit: 0"),
    ],
)
def test_a_method_that_leaves_or_raises_elsewhere_is_no_success_either(
    members: str, body: str, sentence: str, make_method: Callable[..., str], evaluate: Command, records: Records
) -> None:
    outcome = evaluate("--plugin", make_method(body or "return lm", members=members))
    assert outcome.code == (1 if body == LEAVING else 2)
    assert sentence in outcome.sentence
    assert records(Path("out")) == []
