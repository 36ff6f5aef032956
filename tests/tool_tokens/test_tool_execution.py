"""Calls run: arguments split, tools that misbehave in every way, and nothing left running."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.tasks.written_calls import split_arguments
from harness_tool_tokens.tools.executing import Executor
from harness_tool_tokens.tools.toolbox import Toolbox

TOOLS = """
import decimal, fractions, math, os, signal, subprocess, sys, threading, time
from typing import Optional
from harness_tool_tokens import tool

print("loading is loud")
STATE = []

@tool(description="waits")
def wait(seconds: float):
    time.sleep(seconds)
    return "waited"

@tool(description="never ends, in Python")
def spin():
    while True: pass

@tool(description="never ends, in C, and lets no thread run")
def grind():
    return 7 ** (10 ** 9)

@tool(description="prints in every way there is")
def loud(text):
    print(text)
    print(text, file=sys.stderr)
    print("\\udcff\\U0001f600")
    sys.__stdout__.write("{}\\n")
    os.write(1, b'{"text": "forged"}\\n')
    subprocess.run([sys.executable, "-c", "print('{}')"])
    return "quiet"

@tool(description="reads")
def ask():
    return repr(sys.stdin.read())

@tool(description="returns what Python makes of a text")
def give(text):
    return eval(text)

@tool(description="runs a text")
def run(text):
    exec(text)
    return "ran"

@tool(description="types")
def types(a: int, b: float, c: "int | None" = None, d: Optional[float] = None, e=None):
    return " ".join(type(x).__name__ + "=" + repr(x) for x in (a, b, c, d, e))

@tool(description="whole numbers", arity="0+")
def total(*numbers: int):
    return sum(numbers)

@tool(description="echo", arity="0+")
def echo(*texts):
    return repr(list(texts))

@tool(description="two", arity="0+")
def two(a, b):
    return a + b

@tool(description="remembers")
def count():
    STATE.append(1)
    return len(STATE)

@tool(description="process")
def number():
    return os.getpid()

@tool(description="starts a process that lasts, and then hangs")
def breed(path):
    child = subprocess.Popen(["sleep", "1000"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    time.sleep(1000)
"""


@pytest.fixture(scope="module")
def toolbox(tmp_path_factory: pytest.TempPathFactory) -> Toolbox:
    """Tools that do all that tools should not."""
    path = tmp_path_factory.mktemp("tools") / "tools.py"
    path.write_text(TOOLS, encoding="utf-8")
    return Toolbox.load([str(path), "arithmetic"])


@pytest.fixture(scope="module")
def executor(toolbox: Toolbox) -> Iterator[Executor]:
    """An executor that is quick to lose patience."""
    with Executor(toolbox, timeout=1.0) as opened:
        yield opened


def is_running(pid: int) -> bool:
    """Is there such a process? One that has ended and was not yet waited for is none."""
    try:
        os.kill(pid, 0)
        if Path("/proc/self/stat").exists():
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            return state not in ("Z", "X")
    except OSError:
        return False
    return True


def ends(pid: int, *, seconds: float = 10) -> bool:
    """Wait until a process has ended; returns False if it has not in time."""
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


# --- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", []),
        ("  ", []),
        ("a", ["a"]),
        (" a , b ", ["a", "b"]),
        ("a,", ["a", ""]),
        ('"a, b", c', ["a, b", "c"]),
        ("'a, b', 'c'", ["a, b", "c"]),
        ("\u201ca, b\u201d, c", ["a, b", "c"]),
        ("O'Brien, 3", ["O'Brien", "3"]),
        ("'tis, 5", ["'tis", "5"]),
        ("dogs', cats'", ["dogs'", "cats'"]),
        ('"it\'s", 4', ["it's", "4"]),
        (r'"say \"hi\"", 2', ['say "hi"', "2"]),
        ("f(1, 2), [3, 4], {5: 6, 7: 8}", ["f(1, 2)", "[3, 4]", "{5: 6, 7: 8}"]),
        ('["a", "b)"], 2', ['["a", "b)"]', "2"]),
        ('f("a, (b"), 2', ['f("a, (b")', "2"]),
        ("a), b", ["a)", "b"]),
        ("((a, b", ["((a, b"]),
        ('""', [""]),
        ('" a "', [" a "]),
        ("5' tall, 6", ["5' tall", "6"]),
    ],
)
def test_arguments_are_split_at_their_own_commas(text: str, arguments: list[str]) -> None:
    """Not at those in brackets or quotes; an apostrophe is a letter."""
    assert split_arguments(text) == arguments


@given(st.lists(st.text("abc xyz0.-é", min_size=1).map(str.strip).filter(bool), min_size=1))
def test_plain_arguments_come_back(arguments: list[str]) -> None:
    """Joined and split again, bare or in quotes."""
    assert split_arguments(", ".join(arguments)) == arguments
    assert split_arguments(",".join(f'"{argument}"' for argument in arguments)) == arguments


@given(st.text(max_size=300) | st.text("',\"([{}]) a\\\u201c\u201d", max_size=60))
@settings(deadline=None)
def test_any_text_can_be_split(text: str) -> None:
    """Nothing raises, and nothing is made up."""
    arguments = split_arguments(text)
    assert (arguments == []) == (not text.strip())
    assert sum(map(len, arguments)) <= len(text)


@pytest.mark.parametrize("piece", ["'", "',", "'x,", "(", ",", '"a" ', "\\'", " '"])
def test_splitting_long_texts_takes_little_time(piece: str) -> None:
    """No quote makes it look at the rest again and again."""
    before = time.thread_time()
    split_arguments(piece * 20_000)
    assert time.thread_time() - before < 2


def test_arguments_become_numbers_where_annotations_say_so(executor: Executor) -> None:
    """By the grammar of the arithmetic tools; the rest stays text."""
    assert executor.call("types", "3, 1/4").text == "int=3 float=0.25 NoneType=None NoneType=None NoneType=None"
    assert executor.call("types", "$6.0, 50%, 2*4, 7, 8").text == "int=6 float=0.5 int=8 float=7.0 str='8'"
    assert executor.call("total", "1, 2, 3*3").text == "12"
    assert executor.call("echo", "1, 'b, c', (d, e)").text == repr(["1", "b, c", "(d, e)"])


@pytest.mark.parametrize(
    ("key", "text", "error"),
    [
        ("types", "x, 1", "syntax"),
        ("types", "1.5, 1", "syntax"),
        ("types", "1/0, 1", "syntax"),
        ("types", "1, nan", "syntax"),
        ("types", "1, 1e999", "syntax"),
        ("types", "1, ''", "syntax"),
        ("total", "1, __import__('os')", "syntax"),
        ("types", "1", "arity"),
        ("count", "1", "arity"),
        ("types", "1, 2, 3, 4, 5, 6", "arity"),
        ("two", "1", "arity"),
        ("two", "1, 2, 3", "arity"),
        ("echo", "x" * 5001, "too_large"),
        ("missing", "1", "unknown_tool"),
    ],
)
def test_calls_that_do_not_fit_are_errors_of_their_kind(executor: Executor, key: str, text: str, error: str) -> None:
    """Before the tool sees anything."""
    outcome = executor.call(key, text)
    assert (outcome.text, outcome.error) == (None, error)
    assert outcome.detail


# --- results -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("5", "5"),
        ("10**50", "1" + "0" * 50),
        ("10**1999", "1" + "0" * 1999),
        ("-0.0", "0"),
        ("1/3", "0.33"),
        ("1/700", "0.0014"),
        ("1e22", "10000000000000000000000"),
        ("True", "True"),
        ("'a\\nb\\r\\nc\\u2028d'", "a b c d"),
        ("'\\ud800x'", "?x"),
        ("'caf\\u00e9 \\U0001f600'", "caf\u00e9 \U0001f600"),
        ("[1, 'b']", "[1, 'b']"),
        ("fractions.Fraction(1, 4)", "0.25"),
        ("decimal.Decimal('2.50')", "2.5"),
        ("2j", "2j"),
        ("sorted({'b', 'a'})", "['a', 'b']"),
    ],
)
def test_results_are_written_as_text(executor: Executor, expression: str, text: str) -> None:
    """Numbers by the rules of rounding, text as it is but in one line, anything else as Python shows it."""
    assert executor.call("give", f'"{expression}"').text == text


def test_exact_rounding_and_the_limit_of_characters_are_the_executors(toolbox: Toolbox) -> None:
    """For tools of both kinds."""
    with Executor(toolbox, rounding="exact", most_characters=14) as executor:
        assert executor.call("give", "1/3").text == executor.call("divide", "1, 3").text == "0.333333333333"
        assert executor.call("give", "10**14").error == executor.call("power", "10, 14").error == "too_large"


@pytest.mark.parametrize(
    ("expression", "error", "detail"),
    [
        ("None", "domain", "returned None"),
        ("float('nan')", "domain", "returned nan"),
        ("-math.inf", "domain", "returned -inf"),
        ("decimal.Decimal('NaN')", "domain", "returned nan"),
        ("''", "domain", "returned an empty text"),
        ("'x' * 10_000_000", "too_large", "10,000,000 characters"),
        ("10**100000", "too_large", "digits"),
        ("fractions.Fraction(10**400)", "too_large", "too large"),
        ("{}['key']", "domain", "KeyError: 'key'"),
        ("1/0", "zero_division", "ZeroDivisionError: division by zero"),
        ("int('x' * 10000)", "domain", "ValueError: invalid literal"),
        ("sys.exit(3)", "domain", "SystemExit: 3"),
        ("(_ for _ in ()).throw(KeyboardInterrupt)", "domain", "KeyboardInterrupt"),
        ("(lambda f: f(f))(lambda f: f(f))", "domain", "RecursionError"),
        ("type('T', (), {'__str__': lambda self: 1/0})()", "zero_division", "ZeroDivisionError"),
        ("(_ for _ in ()).throw(type('E', (Exception,), {'__str__': lambda self: 1/0}))", "domain", "E"),
    ],
)
def test_tools_without_a_result_are_errors_of_their_kind(
    executor: Executor, expression: str, error: str, detail: str
) -> None:
    """None, NaN, too much text, and whatever is raised."""
    outcome = executor.call("give", f'"{expression}"')
    assert (outcome.text, outcome.error) == (None, error)
    assert detail in outcome.detail
    assert len(outcome.detail) <= 300


# --- tools that misbehave ------------------------------------------------------------------------------------------


def test_what_a_tool_prints_goes_elsewhere(executor: Executor, capfd: pytest.CaptureFixture[str]) -> None:
    """By print, to the descriptors, and from a program that it starts; input is empty."""
    assert executor.call("loud", "hello").text == "quiet"
    assert executor.call("loud", "hello").text == "quiet"
    assert executor.call("ask", "").text == "''"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("key", "text"), [("wait", "100"), ("spin", ""), ("grind", "")])
def test_a_tool_that_hangs_costs_its_time_and_is_restarted(toolbox: Toolbox, key: str, text: str) -> None:
    """Asleep, busy in Python or busy in C."""
    with Executor(toolbox, timeout=0.4) as executor:
        pid = int(executor.call("number", "").text or 0)
        before = time.monotonic()
        outcome = executor.call(key, text)
        assert time.monotonic() - before < 5
        assert (outcome.text, outcome.error, outcome.detail) == (None, "timeout", "longer than 0.4 s")
        assert ends(pid)
        assert executor.call("number", "").text not in (None, str(pid))


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("os._exit(3)", "its process ended with status 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process was killed by signal 11"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was killed by signal 9"),
    ],
)
def test_a_tool_that_ends_its_process_costs_only_its_result(toolbox: Toolbox, code: str, detail: str) -> None:
    """The next call starts a fresh one."""
    with Executor(toolbox) as executor:
        for _ in range(2):
            outcome = executor.call("run", f'"{code}"')
            assert (outcome.text, outcome.error, outcome.detail) == (None, "domain", detail)
            assert executor.call("count", "").text == "1"


def test_a_process_that_ends_between_calls_costs_nothing(toolbox: Toolbox) -> None:
    """It is started again before the next one."""
    with Executor(toolbox) as executor:
        pid = int(executor.call("number", "").text or 0)
        os.kill(pid, signal.SIGKILL)
        assert ends(pid)
        time.sleep(0.1)
        assert executor.call("count", "").text == "1"


def test_one_process_serves_all_calls_and_keeps_its_state(toolbox: Toolbox) -> None:
    """Loading happens once; many threads may call."""
    with Executor(toolbox, timeout=5) as executor:
        pids = [executor.call("number", "").text for _ in range(20)]
        assert len(set(pids)) == 1
        threads = [threading.Thread(target=executor.call, args=("count", "")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert executor.call("count", "").text == "9"


def test_calls_are_quick(toolbox: Toolbox) -> None:
    """A hundred calls of a started tool take well below a second of anybody's time."""
    with Executor(toolbox, timeout=30) as executor:
        executor.call("count", "")
        before = time.monotonic()
        for _ in range(100):
            executor.call("count", "")
        assert time.monotonic() - before < 5


def test_slow_imports_are_not_held_against_a_call(tmp_path: Path) -> None:
    """Loading has a time limit of its own."""
    path = tmp_path / "slow.py"
    source = "import time; time.sleep(1)\nfrom harness_tool_tokens import tool\n@tool(description='one')\ndef one(): return 1\n"
    path.write_text(source, encoding="utf-8")
    with Executor(Toolbox.load([str(path)]), timeout=0.3) as executor:
        assert executor.call("one", "").text == "1"


def test_a_file_that_does_not_load_any_more_is_tried_once(tmp_path: Path) -> None:
    """Every call of its tools says why."""
    path = tmp_path / "gone.py"
    path.write_text(
        "from harness_tool_tokens import tool\n@tool(description='one')\ndef one(): return 1\n", encoding="utf-8"
    )
    toolbox = Toolbox.load([str(path)])
    path.unlink()
    with Executor(toolbox) as executor:
        first, second = executor.call("one", ""), executor.call("one", "")
        assert first == second
        assert (first.text, first.error) == (None, "domain")
        assert "did not load: FileNotFoundError" in first.detail
    with pytest.raises(HarnessError, match="cannot be read any more"):
        _ = toolbox.digest


def test_modules_beside_a_file_can_be_imported(tmp_path: Path) -> None:
    """As in a script, and data classes find their module."""
    (tmp_path / "beside_it.py").write_text("VALUE = 42", encoding="utf-8")
    source = """
    from __future__ import annotations
    from dataclasses import dataclass
    from beside_it import VALUE
    from harness_tool_tokens import tool

    @dataclass
    class Box:
        content: int

    @tool(description="adds")
    def added(n: int) -> int:
        return Box(n).content + VALUE
    """
    (tmp_path / "random.py").write_text(textwrap.dedent(source), encoding="utf-8")
    with Executor(Toolbox.load([str(tmp_path / "random.py")])) as executor:
        assert executor.call("added", "1").text == "43"


@pytest.mark.parametrize(
    "settings", [{"timeout": 0}, {"timeout": float("nan")}, {"most_characters": 0}, {"rounding": "exakt"}]
)
def test_settings_that_serve_no_call_are_refused(toolbox: Toolbox, settings: dict[str, float]) -> None:
    """In a sentence."""
    with pytest.raises(HarnessError, match=r"give more than 0|did you mean 'exact'"):
        Executor(toolbox, **settings)  # type: ignore[arg-type]


# --- nothing is left running ---------------------------------------------------------------------------------------


def test_closing_ends_the_process_and_a_later_call_starts_another(toolbox: Toolbox) -> None:
    """Closing twice is fine."""
    executor = Executor(toolbox)
    pid = int(executor.call("number", "").text or 0)
    assert is_running(pid)
    executor.close()
    executor.close()
    assert ends(pid)
    again = int(executor.call("number", "").text or 0)
    assert again != pid
    executor.close()
    assert ends(again)


def test_an_executor_that_is_forgotten_ends_its_process(toolbox: Toolbox) -> None:
    """By garbage collection."""
    executor = Executor(toolbox)
    pid = int(executor.call("number", "").text or 0)
    del executor
    gc.collect()
    assert ends(pid)


def test_loading_leaves_nothing_running(tmp_path: Path) -> None:
    """The process that reads a file of tools ends with it, also when the file hangs or fails."""
    path = tmp_path / "tools.py"
    source = f"import os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    ending = "from harness_tool_tokens import tool\n@tool(description='one')\ndef one(): return 1\n"
    path.write_text(source + ending, encoding="utf-8")
    Toolbox.load([str(path)])
    assert ends(int((tmp_path / "pid").read_text(encoding="utf-8")))
    path.write_text(source + "raise ValueError", encoding="utf-8")
    with pytest.raises(HarnessError):
        Toolbox.load([str(path)])
    assert ends(int((tmp_path / "pid").read_text(encoding="utf-8")))


@pytest.mark.skipif(sys.platform == "win32", reason="groups of processes are POSIX's")
def test_what_a_tool_starts_ends_with_it(toolbox: Toolbox, tmp_path: Path) -> None:
    """A time-out ends the whole group."""
    with Executor(toolbox, timeout=1) as executor:
        assert executor.call("breed", str(tmp_path / "pid")).error == "timeout"
        assert ends(int((tmp_path / "pid").read_text(encoding="utf-8")))


CALLER = """
import sys, time
from harness_tool_tokens.tools.executing import Executor
from harness_tool_tokens.tools.toolbox import Toolbox

executor = Executor(Toolbox.load([sys.argv[1]]), timeout=float(sys.argv[4]))
print(executor.call("number", "").text, flush=True)
if sys.argv[2]:
    executor.call(sys.argv[2], sys.argv[3])
"""


def start_caller(toolbox: Toolbox, key: str, text: str, timeout: float) -> tuple[subprocess.Popen[str], int]:
    """Start a process that calls a tool, and return it and the number of the tool's process."""
    file = toolbox[0].source.rpartition(":")[0]
    command = [sys.executable, "-c", CALLER, file, key, text, str(timeout)]
    caller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    return caller, int(caller.stdout.readline())


def test_a_caller_that_exits_without_closing_leaves_nothing(toolbox: Toolbox) -> None:
    """When the interpreter exits."""
    caller, pid = start_caller(toolbox, "", "", 5)
    assert caller.wait(20) == 0
    assert ends(pid)


@pytest.mark.parametrize("key", ["wait", "spin"])
def test_a_caller_that_is_killed_leaves_nothing(toolbox: Toolbox, key: str) -> None:
    """Its tools end as soon as their input does, in the middle of a call."""
    caller, pid = start_caller(toolbox, key, "500" if key == "wait" else "", 500)
    time.sleep(0.3)
    caller.kill()
    caller.wait(20)
    assert ends(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="the alarm is POSIX's")
def test_a_tool_that_lets_no_thread_run_ends_soon_after_its_killed_caller(toolbox: Toolbox) -> None:
    """By the system's alarm, a little after the time limit."""
    caller, pid = start_caller(toolbox, "grind", "", 0.5)
    time.sleep(0.2)
    caller.kill()
    caller.wait(20)
    assert ends(pid, seconds=15)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_that_exits_does_not_end_its_parents_tools(toolbox: Toolbox) -> None:
    """Only the process that started them does."""
    with Executor(toolbox) as executor:
        pid = executor.call("number", "").text
        child = os.fork()
        if child == 0:
            try:
                executor.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert executor.call("number", "").text == pid


FORKS = """
import os, time
from harness_tool_tokens import tool

def _fork(parent_waits, child):
    pid = os.fork()
    if pid == 0:
        return child()
    if parent_waits:
        os.waitpid(pid, 0)
    return f"parent"

def _raise():
    raise ValueError("child")

@tool(description="Forks.", examples=["Q: a\\nA: <forks>(returns)=1", "Q: b\\nA: <forks>(2)=2"])
def forks(how):
    if how == "returns":
        return _fork(True, lambda: "child")
    if how == "raises":
        return _fork(True, _raise)
    if how == "exits":
        return _fork(True, lambda: exit(3))
    return _fork(False, lambda: time.sleep(0.3) or "late child")

@tool(description="Says it again.", examples=["Q: a\\nA: <again>(1)=1", "Q: b\\nA: <again>(2)=2"])
def again(text):
    return f"again {text}"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_tool_that_forks_gives_one_result_and_later_calls_get_their_own(tmp_path: Path) -> None:
    """Demand: a child that comes back from the tool says nothing, at once or late."""
    (tmp_path / "forks.py").write_text(FORKS, encoding="utf-8")
    with Executor(Toolbox.load([str(tmp_path / "forks.py")])) as executor:
        for number, how in enumerate(("returns", "raises", "late", "exits", "returns")):
            assert executor.call("forks", how).text == "parent", how
            assert executor.call("again", str(number)).text == f"again {number}"
        late = [executor.call("again", str(number)).text for number in range(3)]
        assert late == [f"again {number}" for number in range(3)]
