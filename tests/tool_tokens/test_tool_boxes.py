"""Tools loaded from files of every kind, and every file that cannot be used."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness_tool_tokens.tools.arithmetic import ARITHMETIC
from harness_tool_tokens.tools.executing import Executor
from harness_tool_tokens.tools.tool import Tool, tool
from harness_tool_tokens.tools.toolbox import Toolbox

TEN_LINES = """\
from harness_tool_tokens import tool

@tool(
    description="Gives the number of letters in a word.",
    examples=[
        "Q: How long is 'harbour'?\\nA: It has <letters>(harbour)=7 letters.",
        "Q: Which is longer, 'tea' or 'coffee'?\\nA: 'coffee', with <letters>(coffee)=6 letters.",
    ])
def letters(word):
    return len(word)
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file and returns its path."""

    def writing(name: str, content: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content), encoding="utf-8")
        return path

    return writing


def load(*specs: object, **settings: Any) -> Toolbox:
    """Load a toolbox from paths or names."""
    return Toolbox.load([str(spec) for spec in specs], **settings)


# --- what loads ----------------------------------------------------------------------------------------------------


def test_a_tool_of_ones_own_takes_ten_lines(write: Write) -> None:
    """A function, a name, a sentence, two examples."""
    assert len(TEN_LINES.splitlines()) == 10
    toolbox = load(write("mine.py", TEN_LINES))
    assert toolbox.keys == ("letters",)
    (own,) = toolbox
    assert (own.name, own.kind, own.arity) == ("letters", "python", "1")
    assert own.description == "Gives the number of letters in a word."
    assert len(own.examples) == 2
    with Executor(toolbox) as executor:
        assert executor.call("letters", "'harbour'").text == "7"


def test_the_built_in_tools_load_by_name() -> None:
    """All thirteen, or GSM8K's four, in order."""
    assert load("arithmetic").tools == ARITHMETIC
    assert load("gsm8k").keys == ("add", "subtract", "multiply", "divide")


def test_several_files_are_one_toolbox_of_which_the_first_can_be_taken(write: Write) -> None:
    """Concatenated in the order given."""
    path = write("mine.py", TEN_LINES)
    assert load("gsm8k", path).keys == ("add", "subtract", "multiply", "divide", "letters")
    assert load(path, "arithmetic[:2]").keys == ("letters", "add", "subtract")


def test_arity_key_and_name_come_from_the_function_unless_given(write: Write) -> None:
    """Every shape of signature."""
    path = write(
        "shapes.py",
        """
        from harness_tool_tokens import tool
        @tool(description="a")
        def none(): return 1
        @tool(description="a")
        def two(a, b): return 1
        @tool(description="a")
        def one_or_two(a, b=2): return 1
        @tool(description="a")
        def any_number(*parts): return 1
        @tool(description="a")
        def one_or_more(a, *parts, flag=False): return 1
        @tool(description="a", name="shown", key="K1", arity="3")
        def given(*parts): return 1
        """,
    )
    toolbox = load(path)
    assert [each.arity for each in toolbox] == ["0", "2", "1-2", "0+", "1+", "3"]
    assert (toolbox[-1].key, toolbox[-1].name, toolbox[-1].source.rpartition(":")[2]) == ("K1", "shown", "given")


def test_a_marked_function_stays_a_function() -> None:
    """It can be called and tested as before."""

    @tool(description="Doubles.")
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8


TABLES: list[dict[str, Any]] = [
    {"name": "capital", "description": "Gives the capital of a country.", "argument": "country"},
    {"property": "P17", "name": "location", "description": "gets the country", "index": 4, "raw": "location(name)"},
    {"property": "P276", "name": "location", "description": "gets the place"},
    {"token": "[WALK]", "name": "WALK", "kind": "action"},
    {"key": "sum", "name": "add", "arguments": "2+", "in_gsm8k_xl": True},
    {"name": "letters", "function": "code/mine.py:letters", "examples": ["Q: a?\nA: <letters>(a)=1"]},
]


@pytest.mark.parametrize("kind", ["list.json", "object.json", "lines.jsonl", "tables.toml"])
def test_tables_load_from_json_and_toml(write: Write, kind: str) -> None:
    """Keys are a key, a property, a token or the name; code is one of the thirteen or a function in a file beside."""
    write("code/mine.py", TEN_LINES)
    texts = {
        "list.json": json.dumps(TABLES),
        "object.json": json.dumps({"tools": TABLES}),
        "lines.jsonl": "\ufeff" + "\n\n".join(map(json.dumps, TABLES)) + "\r\n",
        "tables.toml": "\n".join(
            "[[tools]]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in table.items())
            for table in TABLES
        ),
    }
    toolbox = load(write(kind, texts[kind]))
    assert toolbox.keys == ("capital", "P17", "P276", "[WALK]", "sum", "letters")
    assert [each.kind for each in toolbox] == ["none", "none", "none", "none", "arithmetic", "python"]
    assert [each.text for each in toolbox] == ["", "", "", "[WALK]", "", ""]
    assert toolbox[4].examples == ARITHMETIC[0].examples
    assert toolbox[5].arity == "1"
    with Executor(toolbox) as executor:
        assert executor.call("sum", "1, 2").text == "3"
        assert executor.call("letters", "abcd").text == "4"
        assert executor.call("capital", "France").error == "unknown_tool"


def test_a_file_is_looked_for_in_the_data_folder_too(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no path of one machine is needed."""
    path = write("folder/relations.jsonl", json.dumps(TABLES[0]))
    monkeypatch.setenv("HARNESS_TOOL_DATA", str(path.parent))
    assert load("relations.jsonl").keys == ("capital",)


# --- a toolbox -----------------------------------------------------------------------------------------------------


def test_tools_have_numbers_and_an_unknown_key_gets_a_suggestion() -> None:
    """In the order of the toolbox."""
    toolbox = load("arithmetic")
    assert [toolbox.number(key) for key in toolbox.keys] == list(range(13))
    assert toolbox[2:4] == ARITHMETIC[2:4]
    assert ARITHMETIC[5] in toolbox
    with pytest.raises(HarnessError, match=r"'multply'; did you mean 'multiply'\?"):
        toolbox.number("multply")


def test_the_digest_follows_every_field_and_the_code(write: Write, tmp_path: Path) -> None:
    """Equal tools have equal digests wherever their file lies; any change gives another."""
    first = load(write("a/mine.py", TEN_LINES)).digest
    assert load(write("b/mine.py", TEN_LINES)).digest == first
    assert load(write("c/mine.py", TEN_LINES.replace("len(word)", "len(word) + 1"))).digest != first
    own = Tool("k", "n", "d", "1", "a", ("<n>(1)=1",), "none", "", "t")
    changes = {"key": "x", "name": "n", "description": "x", "arity": "2", "argument": "x", "text": "x"}
    others = [Tool(**{**vars(own), field: value}) for field, value in changes.items() if field != "name"]
    digests = {Toolbox((each,)).digest for each in [own, *others, Tool(**{**vars(own), "examples": ("<n>(2)=2",)})]}
    assert len(digests) == 7
    assert Toolbox((own, others[0])).digest != Toolbox((others[0], own)).digest


# --- what does not load --------------------------------------------------------------------------------------------

BROKEN_PYTHON = {
    "no tools": ("def f(): pass", r"holds no tools; write @tool"),
    "empty": ("", r"holds no tools"),
    "syntax": ("def f(:", r"did not load: SyntaxError"),
    "raises": ("raise RuntimeError('no key')", r"did not load: RuntimeError: no key; mend"),
    "exits": ("import sys; sys.exit(3)", r"did not load: SystemExit: 3"),
    "dies": ("import os; os._exit(7)", r"did not load: its process ended with status 7"),
    "import": ("import no_such_module", r"did not load: ModuleNotFoundError"),
    "null byte": ("x = '\x00'", r"did not load: (SyntaxError|ValueError)"),
    "decorator": ("from harness_tool_tokens import tool\n@tool\ndef f(): pass", r"did not load: TypeError"),
    "no text": (
        "from harness_tool_tokens import tool\n@tool(description=5)\ndef f(): pass",
        r"a number as its description",
    ),
    "one example": (
        "from harness_tool_tokens import tool\n@tool(description='a', examples='<f>(1)=1')\ndef f(): pass",
        r"are one text; give a list",
    ),
    "odd examples": (
        "from harness_tool_tokens import tool\n@tool(description='a', examples=[5])\ndef f(): pass",
        r"examples that are not a list of texts",
    ),
    "asynchronous": (
        "from harness_tool_tokens import tool\n@tool(description='a')\nasync def f(): pass",
        r"f is asynchronous; make it a plain function",
    ),
    "by name": (
        "from harness_tool_tokens import tool\n@tool(description='a')\ndef f(*, unit): pass",
        r"must be given by name; give it a default",
    ),
    "no function": (
        "from harness_tool_tokens import tool\nf = tool(description='a')(len)",
        r"cannot be marked as a tool",
    ),
    "example without call": (
        "from harness_tool_tokens import tool\n@tool(description='a', examples=['Q: x'])\ndef f(): pass",
        r"example 1 of tool 'f' holds no call; write it as <f>\(",
    ),
    "same key": (
        "from harness_tool_tokens import tool\n@tool(description='a')\ndef f(): pass\n"
        "@tool(description='b', key='f')\ndef g(): pass",
        r"2 tools have the key 'f'",
    ),
}


@pytest.mark.parametrize("case", BROKEN_PYTHON)
def test_python_that_cannot_be_used_is_refused_in_a_sentence(write: Write, case: str) -> None:
    """And nothing of it runs in this process: one that ends its process ends only its own."""
    source, message = BROKEN_PYTHON[case]
    with pytest.raises(HarnessError, match=message) as refusal:
        load(write("mine.py", source))
    assert "\n" not in str(refusal.value)


def test_python_that_does_not_finish_loading_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time limit of its own."""
    from harness.isolation import process

    monkeypatch.setattr(process.IsolatedFile.__init__, "__kwdefaults__", {"seconds": 0.5})
    with pytest.raises(HarnessError, match=r"took longer than 0\.5 s to load"):
        load(write("mine.py", "while True: pass"))


BROKEN_TABLES = {
    "json": ("t.json", "[{]", r"t\.json is not valid JSON"),
    "deep json": ("t.json", "[" * 100_000, r"is not valid JSON"),
    "empty json": ("t.json", "", r"is not valid JSON"),
    "empty list": ("t.json", "[]", r"holds no list of tools"),
    "number": ("t.json", "5", r"holds no list of tools"),
    "object": ("t.json", '{"tool": []}', r"holds no list of tools"),
    "null": ("t.json", "null", r"holds no list of tools"),
    "item": ("t.json", '[{"name": "a"}, "b"]', r"tool 2 of .*t\.json is text, where a table"),
    "line": ("t.jsonl", '{"name": "a"}\n\n{"name": ', r"line 3 of .*t\.jsonl is not valid JSON"),
    "no lines": ("t.jsonl", "\n \n", r"holds no tools; write one JSON object a line"),
    "list line": ("t.jsonl", "[1]", r"line 1 of .* is a list, where a table"),
    "toml": ("t.toml", "[[tools]\n", r"t\.toml is not valid TOML"),
    "empty toml": ("t.toml", "", r"holds no list of tools; write \[\[tools\]\]"),
    "toml table": ("t.toml", "[tools]\nname = 'a'", r"holds no list of tools"),
    "no name": ("t.json", '[{"key": "a"}]', r"tool 1 of .* has no name"),
    "blank name": ("t.json", '[{"name": " "}]', r"has no name"),
    "name type": ("t.json", '[{"name": 5}]', r"has a number as its name, where text is due"),
    "null type": ("t.json", '[{"name": "a", "description": null}]', r"has null as its description"),
    "list type": ("t.json", '[{"name": "a", "arity": [2]}]', r"has a list as its arity"),
    "arity": (
        "t.json",
        '[{"name": "a", "arity": "many"}]',
        r"tool 'a' has the arity 'many'; write .* 2, 1-2, 1\+ or 0\+",
    ),
    "arity order": ("t.json", '[{"name": "a", "arity": "3-1"}]', r"has the arity '3-1'"),
    "control": ("t.json", '[{"name": "a\\u001b[2J"}]', r"control character"),
    "misspelled": ("t.json", '[{"name": "a", "exmples": []}]', r"field 'exmples', .*did you mean 'examples'\?"),
    "examples": ("t.json", '[{"name": "a", "examples": "<a>(1)=1"}]', r"examples that are not a list"),
    "wrong call": (
        "t.json",
        '[{"name": "a", "examples": ["<a>(1)", "<b>(1)=1"]}]',
        r"example 2 of tool 'a' holds no call",
    ),
    "same key": ("t.json", '[{"name": "a"}, {"name": "b", "key": "a"}]', r"2 tools have the key 'a'"),
    "same name": ("t.json", '[{"name": "a"}, {"name": "a"}]', r"2 tools have the key 'a'"),
    "shared name": (
        "t.json",
        '[{"name": "a"}, {"name": "a", "key": "P1"}]',
        r"2 tools are called 'a' .* key of its own",
    ),
    "function form": ("t.json", '[{"name": "a", "function": "letters"}]', r"function 'letters'; write FILE\.py:name"),
    "function file": ("t.json", '[{"name": "a", "function": "no.py:f"}]', r"no\.py, where no file is"),
    "function name": (
        "t.json",
        '[{"name": "a", "function": "mine.py:leters"}]',
        r"'leters', which .* did you mean 'letters'\?",
    ),
    "type of file": ("t.yaml", "a: 1", r"tools cannot be read from .*t\.yaml; give a file of type \.py"),
}


@pytest.mark.parametrize("case", BROKEN_TABLES)
def test_tables_that_cannot_be_used_are_refused_in_a_sentence(write: Write, case: str) -> None:
    """Naming file, place and what is wrong."""
    name, content, message = BROKEN_TABLES[case]
    write("mine.py", TEN_LINES)
    with pytest.raises(HarnessError, match=message) as refusal:
        load(write(name, content))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.toml", "t.py"])
def test_files_that_are_no_text_and_folders_are_refused(tmp_path: Path, name: str) -> None:
    """Bytes that are not UTF-8 and folders named like files."""
    (tmp_path / name).write_bytes(b'[{"name": "\xff\xfe"}]')
    with pytest.raises(HarnessError, match=r"is not UTF-8 at byte 11|did not load: SyntaxError"):
        load(tmp_path / name)
    folder = tmp_path / f"folder-{name}"
    folder.mkdir()
    with pytest.raises(HarnessError, match="is a folder"):
        load(folder)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions bind no administrator")
def test_a_file_without_permission_is_refused(write: Write) -> None:
    """In a sentence."""
    path = write("t.json", "[]")
    path.chmod(0)
    with pytest.raises(HarnessError, match="cannot be read"):
        load(path)


def test_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, files and counts."""
    monkeypatch.delenv("HARNESS_TOOL_DATA", raising=False)
    with pytest.raises(HarnessError, match=r"no tools are called 'arithmetics'; did you mean 'arithmetic'\?"):
        load("arithmetics")
    with pytest.raises(HarnessError, match=r"missing\.json"):
        load(tmp_path / "missing.json")
    with pytest.raises(HarnessError, match="no tool in the list"):
        Toolbox.load([])
    for first in (0, -1, 14):
        with pytest.raises(HarnessError, match="from 1 to 13"):
            load(f"arithmetic[:{first}]")
    with pytest.raises(HarnessError, match="2 tools have the key 'add'"):
        load("arithmetic", "gsm8k")


GENERATOR = """
from harness_tool_tokens import tool

{mark}def counts(text):
    for letter in text:
        yield letter
"""


MARK = '@tool(description="Counts.", examples=["Q: a\\nA: <counts>(1)=1", "Q: b\\nA: <counts>(2)=2"])\n'


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_generator_as_a_tool_is_refused_in_a_sentence(tmp_path: Path, is_listed: bool) -> None:
    """Demand: its result would be an object without meaning; the sentence says what to do."""
    path = tmp_path / "counts.py"
    path.write_text(GENERATOR.format(mark="" if is_listed else MARK), encoding="utf-8")
    if is_listed:
        listed = {"name": "counts", "description": "Counts.", "function": "counts.py:counts", "arity": "1"}
        path = tmp_path / "tools.json"
        path.write_text(json.dumps([listed]), encoding="utf-8")
    with pytest.raises(HarnessError, match="is a generator; make it return its result") as refused:
        Toolbox.load([str(path)])
    assert "counts" in str(refused.value) and "\n" not in str(refused.value)
