"""Plugins are found by metadata, loaded one at a time, and blamed by name when they are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError, plugins

pytestmark = pytest.mark.usefixtures("fresh")

MakePlugin = Callable[..., Path]
Command = Callable[..., Any]

GOOD = """
    from pathlib import Path
    from harness import hookimpl

    @hookimpl
    def harness_task_folders():
        return [Path(__file__).parent]
"""
METHODS = """
    from harness import hookimpl

    class First:
        name = "first"
        def apply(self, lm, *, seed, workdir):
            return lm

    class Second(First):
        pass

    @hookimpl
    def harness_methods():
        return {}
"""
FOLDERS = """
    from pathlib import Path
    from harness import hookimpl

    @hookimpl
    def harness_task_folders():
        return {}
"""
BROKEN = {
    "a missing package": ("import no_such_package", "No module named 'no_such_package'"),
    "a syntax error": ("def broken(:", "SyntaxError"),
    "an exit at import": ("raise SystemExit(0)", "SystemExit: 0"),
    "an error at import": ("raise RuntimeError('the moon is full')", "RuntimeError: the moon is full"),
    "an error without words": ("raise ValueError", "ValueError"),
    "an error of many lines": ("raise ValueError('one\\ntwo\\x1b[31m')", "one␊two␛[31m"),
    "a hook that raises": (METHODS.format("1 / 0"), "ZeroDivisionError: division by zero"),
    "a hook that exits": (METHODS.format("__import__('sys').exit('enough')"), "SystemExit: enough"),
    "a misspelt hook": (METHODS.format("[First]").replace("harness_methods", "harness_method"), "'harness_methods'"),
    "a hook with an argument": (METHODS.format("[First]").replace("methods()", "methods(config)"), "config"),
    "methods that are None": (METHODS.format("None"), "NoneType"),
    "methods that are a dict": (METHODS.format("{'first': First}"), "dict"),
    "methods that are a generator": (METHODS.format("(kind for kind in [First])"), "generator"),
    "a method that is text": (METHODS.format("['first']"), "first"),
    "a method that is an object": (METHODS.format("[First()]"), "First"),
    "a method without a name": (METHODS.format("[type('Nameless', (), {'apply': print})]"), "Nameless"),
    "a method with an empty name": (METHODS.format("[type('Empty', (First,), {'name': ''})]"), "Empty"),
    "a method without apply": (METHODS.format("[type('Idle', (), {'name': 'idle'})]"), "Idle"),
    "a method name used twice": (METHODS.format("[First, Second]"), "'first' twice: First and Second"),
    "a method called baseline": (METHODS.format("[type('B', (First,), {'name': 'baseline'})]"), "'baseline'"),
    "a folder that is text": (FOLDERS.format("[str(Path(__file__).parent)]"), "site-third-party-crooked"),
    "a relative folder": (FOLDERS.format("[Path('tasks')]"), "tasks"),
    "a folder that is missing": (FOLDERS.format("[Path(__file__).parent / 'nowhere']"), "nowhere"),
    "a folder that is a file": (FOLDERS.format("[Path(__file__)]"), ".py"),
    "a folder outside a list": (FOLDERS.format("Path(__file__).parent"), "PosixPath"),
    "folders that are None": (FOLDERS.format("None"), "NoneType"),
    "no hook": ("answer = 42", "no harness hook"),
    "hooks that return nothing": (METHODS.format("[]"), "offers neither methods nor task folders"),
}
# What `harness tasks` does not come by: it asks for folders alone.
OF_METHODS = {
    name for name, (source, _) in BROKEN.items() if "harness_methods()" in source or name == "no hook"
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_told_in_one_sentence_and_touches_no_other(
    fault: str, make_plugin: MakePlugin, cli: Command
) -> None:
    source, cause = BROKEN[fault]
    make_plugin("crooked", source, version="0.7", distribution="third-party-crooked")
    make_plugin("good", GOOD)

    broken = cli("plugins", "crooked")
    assert (broken.code, broken.out) == (2, "")
    assert broken.err.count("\n") == 1
    assert broken.sentence.startswith("harness: plugin 'crooked' (third-party-crooked 0.7) ")
    assert cause in broken.sentence

    assert cli("plugins", "good").code == 0
    assert cli("plugins").code == 0
    assert cli("--help").code == 0
    listed = cli("tasks")
    is_told = fault not in OF_METHODS
    assert (listed.code, listed.err.count("\n")) == (is_told, is_told)
    assert "langgame" in listed.out


def test_one_missing_result_among_good_ones_is_told_too(make_plugin: MakePlugin) -> None:
    make_plugin("half", textwrap.dedent(METHODS.format("None")) + textwrap.dedent(GOOD))
    with pytest.raises(
        HarnessError, match=r"plugin 'half' .* returns NoneType from harness_methods, where a list is due"
    ):
        plugins.load("half")


def test_a_hook_without_its_mark_is_told(make_plugin: MakePlugin) -> None:
    make_plugin("plain", METHODS.format("[First]").replace("@hookimpl", ""))
    with pytest.raises(HarnessError, match="hookimpl"):
        plugins.load("plain")


def test_only_the_named_plugin_is_imported(make_plugin: MakePlugin, cli: Command, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    make_plugin("nosy", f"open({str(canary)!r}, 'w').close()")
    make_plugin("good", GOOD)
    for words in (["--help"], ["plugins"], ["plugins", "good"], ["tasks", "--plugin", "good"], ["eval", "--help"]):
        assert cli(*words).code == 0
    assert cli("eval", "--plugin", "good", "--tasks", "langgame", "--limit", 0).code == 2
    assert not canary.exists()
    assert cli("plugins", "nosy").code == 2
    assert canary.exists()


def test_a_run_imports_no_other_plugin(
    make_plugin: MakePlugin, make_method: Any, evaluate: Command, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    make_plugin("nosy", f"open({str(canary)!r}, 'w').close()\nraise SystemExit(1)")
    make_method("lm.model.model.norm.weight.data.mul_(0.5)\nreturn lm")
    assert evaluate("--plugin", "invention").code == 0
    assert not canary.exists()


@pytest.mark.parametrize("name", ["stochastick", "Stochastok", "stochastok "])
def test_an_unknown_plugin_suggests_near_names(name: str, cli: Command) -> None:
    for words in (["plugins", name], ["tasks", "--plugin", name], ["eval", "--plugin", name, "--tasks", "langgame"]):
        outcome = cli(*words)
        assert outcome.code == 2
        assert outcome.sentence == (
            f"harness: no plugin is called '{name}'; did you mean 'stochastok'? (`harness plugins` lists them)"
        )


def test_a_name_claimed_by_two_packages_names_both(make_plugin: MakePlugin, cli: Command) -> None:
    make_plugin("twin", GOOD, version="1.0", distribution="third-party-left")
    make_plugin("twin", GOOD, version="2.5", distribution="third-party-right")
    for words in (["plugins", "twin"], ["eval", "--plugin", "twin", "--tasks", "langgame"]):
        outcome = cli(*words)
        assert outcome.code == 2
        assert outcome.sentence == (
            "harness: plugin name 'twin' is claimed by third-party-left 1.0 and third-party-right 2.5; "
            "uninstall all but one of them"
        )
    listed = cli("plugins")
    assert listed.code == 0
    assert listed.out.count("CLAIMED TWICE") == 2


def test_a_slow_plugin_is_told_while_it_imports(
    make_plugin: MakePlugin, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "SLOW_IMPORT_SECONDS", 0.05)
    make_plugin(
        "sloth",
        "import time\ntime.sleep(0.5)\n" + textwrap.dedent(GOOD),
        version="3.1",
        distribution="third-party-sloth",
    )
    outcome = cli("plugins", "sloth")
    assert outcome.code == 0
    assert outcome.err == "plugin 'sloth' (third-party-sloth 3.1) has been importing for 0.05 s\n"
    assert cli("plugins").err == ""


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("entry_points.txt", b"[harness]\nno equals sign here\n"),
        ("entry_points.txt", b"stray = before.any.section\n"),
        ("entry_points.txt", b"[harness]\n\xff\xfe = broken\n"),
        ("entry_points.txt", b"[harness]\nodd = not a module at all!\n"),
        ("entry_points.txt", b"[harness]\nodd =\n"),
        ("METADATA", b"Name: \xff\xfe\nVersion: \xff\n"),
        ("METADATA", b""),
        ("METADATA", None),
    ],
)
def test_broken_metadata_of_one_package_leaves_the_others_working(
    file: str, content: bytes | None, make_plugin: MakePlugin, cli: Command
) -> None:
    make_plugin("good", GOOD)
    site = make_plugin("odd", GOOD)
    [path] = site.glob(f"*.dist-info/{file}")
    path.unlink() if content is None else path.write_bytes(content)
    assert cli("plugins", "good").code == 0
    listed = cli("plugins")
    assert listed.code == 0
    assert "good" in listed.out
    assert cli("plugins", "odd").code in {0, 2}


def test_the_list_is_made_from_metadata_alone(make_plugin: MakePlugin, cli: Command) -> None:
    make_plugin("explosive", "raise SystemExit('imported')", version="9.9", distribution="third-party-explosive")
    listed = cli("plugins")
    assert (listed.code, listed.err) == (0, "")
    [line] = [line for line in listed.out.splitlines() if line.startswith("explosive")]
    assert line.split(maxsplit=3) == ["explosive", "third-party-explosive", "9.9", "for a test"]
    assert "stochastok" in listed.out


def test_a_hundred_plugins_are_listed_without_an_import(make_plugin: MakePlugin, tmp_path: Path) -> None:
    site = make_plugin("first", "raise SystemExit")
    for number in range(99):
        info = site / f"crowd_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: crowd-{number}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[harness]\ncrowd{number} = crowd_{number}\n", encoding="utf-8")
    names = [plugin.name for plugin in plugins.installed()]
    assert names == sorted(names)
    assert len({name for name in names if name.startswith("crowd")}) == 99


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["plugins"], ["tasks"], ["tasks", "--json"], ["eval", "--help"], ["apply", "--help"]],
)
def test_help_and_the_list_import_nothing_heavy(words: list[str]) -> None:
    program = """
        import sys
        from harness.cli import main
        try:
            main(sys.argv[1:])
        except SystemExit as error:
            assert not error.code, error.code
        heavy = [name for name in ("torch", "lm_eval", "transformers", "datasets", "numpy") if name in sys.modules]
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_plugin_is_explained_with_methods_options_and_tasks(
    make_plugin: MakePlugin, own_tasks: Path, cli: Command
) -> None:
    source = f"""
        from dataclasses import dataclass
        from pathlib import Path
        from typing import ClassVar, Literal
        from harness import hookimpl

        @dataclass(frozen=True)
        class Turn:
            '''Turns the embeddings.

            More about it.

            Options:
                degrees: how far, 0 to 360, and this meaning
                    runs on over a second line.
                axes: around which.
                kind: how.
            '''
            name: ClassVar[str] = "turn"
            degrees: float
            axes: tuple[int, ...] = (0, 1)
            kind: Literal["rigid", "loose"] = "rigid"
            file: Path | None = None
            def apply(self, lm, *, seed, workdir):
                return lm

        @hookimpl
        def harness_methods():
            return [Turn]

        @hookimpl
        def harness_task_folders():
            return [Path({str(own_tasks)!r})]
    """
    make_plugin("turner", source, version="4.2", distribution="third-party-turner")
    shown = cli("plugins", "turner")
    assert (shown.code, shown.err) == (0, "")
    text = " ".join(shown.out.split())
    for part in (
        "turner: third-party-turner 4.2",
        "method turn: Turns the embeddings.",
        "degrees number, default (required) how far, 0 to 360, and this meaning runs on over a second line.",
        "kind rigid|loose, default rigid how.",
        "file path or none, default none",
        "colours task",
        "write_colours task",
    ):
        assert part in text
    assert "axes list of whole number, default [0, 1] around which." in text


@pytest.mark.parametrize(
    "annotation",
    ["list[int]", "dict[str, int]", "complex", "NotImported", "object", "int | str", "tuple[int, str]", "tuple"],
)
def test_an_option_of_an_unusual_type_does_not_stop_the_explanation(
    annotation: str, make_plugin: MakePlugin, cli: Command
) -> None:
    source = f"""
        from __future__ import annotations
        from dataclasses import dataclass
        from harness import hookimpl

        @dataclass(frozen=True)
        class Odd:
            name = "odd"
            strange: {annotation} = None
            plain: int = 3
            def apply(self, lm, *, seed, workdir):
                return lm

        @hookimpl
        def harness_methods():
            return [Odd]
    """
    make_plugin("odd", source, module="third_party_odd")
    shown = cli("plugins", "odd")
    assert shown.code == 0
    assert "strange" in shown.out
    assert "plain" in shown.out


def test_a_method_that_is_no_dataclass_is_told_with_its_plugin(make_plugin: MakePlugin, evaluate: Command) -> None:
    make_plugin("loose", METHODS.format("[First]"), version="0.2", distribution="third-party-loose")
    outcome = evaluate("--plugin", "loose")
    assert outcome.code == 2
    assert "no dataclass" in outcome.sentence
    assert "plugin 'loose' (third-party-loose 0.2)" in outcome.sentence


@pytest.mark.xdist_group("runs")
def test_a_plugin_that_pip_installed_evaluates_to_a_record(
    harness: Callable[..., subprocess.CompletedProcess[str]],
    forked: Callable[..., Any],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    records: Callable[[Path], list[dict[str, Any]]],
) -> None:
    package, site = Path(__file__).with_name("third_party_plugin"), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(site), str(package)], check=True, timeout=120)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))

    listed = harness("plugins")
    assert "harness-temperature 0.3" in listed.stdout, listed.stderr

    shown = " ".join(forked("plugins", "temperature").wait().out.split())
    assert "method temperature: Divide all logits by a temperature." in shown
    assert "temperature number, default 2.0 above 0; 1 would leave the model as it is." in shown
    assert "rhymes task" in shown

    tasks = forked("tasks").wait()
    assert [line.split() for line in tasks.out.splitlines() if "rhymes" in line] == [
        ["rhymes", "task", "--plugin", "temperature"]
    ]

    words = ["--plugin", "temperature", "--method_args", "temperature=4", "--tasks", "rhymes", "--output_path", "out"]
    done = forked("eval", "--model_args", f"pretrained={tiny_model}", *words, folder=tmp_path).wait()
    assert done.code == 0, done.err
    [record] = records(tmp_path / "out")
    assert record["plugin"]["distribution"] == "harness-temperature"
    assert record["plugin"]["version"] == "0.3"
    assert record["method"] == {"name": "temperature", "options": {"temperature": 4.0}, "inputs": None}
    assert record["task"]["name"] == "rhymes"
    assert record["report"] == {"scale": 0.25}
    assert record["model"]["weights_changed"] == 32
    assert json.dumps(str(tmp_path)) not in json.dumps(record["plugin"])


def test_a_plugin_says_what_it_is_without_being_imported(make_plugin: MakePlugin, cli: Command) -> None:
    """Its module's first line; its package's summary where it has none, or where its file is no Python."""
    told = '"""Swap tokens for others.\n\nMore."""\nraise SystemExit("imported")\n'
    make_plugin("told", told, distribution="third-party-told")
    make_plugin("silent", "raise SystemExit('imported')\n", distribution="third-party-silent")
    make_plugin("torn", '"""Never closed', distribution="third-party-torn")
    listed = {row["name"]: row for row in json.loads(cli("plugins", "--json").out)}
    assert listed["told"]["meaning"] == "Swap tokens for others."
    assert "Swap tokens for others." in cli("plugins").out
    assert all("Never" not in listed[name]["meaning"] for name in ("silent", "torn"))


def test_what_a_plugin_offers_is_told_to_programs(cli: Command) -> None:
    found = json.loads(cli("plugins", "stochastok", "--json").out)
    assert found["name"] == "stochastok" and len(found["code_digest"]) == 64
    assert [method["name"] for method in found["methods"]] == ["stochastok"]
    assert {"name": "tokenization_robustness", "kind": "task"} in found["tasks"]
    keys = {"name", "type", "default", "meaning"}
    assert all(keys == option.keys() for method in found["methods"] for option in method["options"])


def test_tasks_are_listed_for_programs_and_of_a_folder(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\noutput_type: loglikelihood\n", encoding="utf-8")
    assert json.loads(cli("tasks", "--include_path", str(tmp_path), "--json").out) == [
        {"name": "mine", "kind": "task", "plugin": ""}
    ]
    assert cli("tasks", "--include_path", str(tmp_path)).out == "mine  task\n"
    assert {"name": "langgame", "kind": "group", "plugin": "tasks"} in json.loads(cli("tasks", "--json").out)
    missing = cli("tasks", "--include_path", str(tmp_path / "nowhere"))
    assert missing.code == 2 and "there is no folder" in missing.sentence
    both = cli("tasks", "--include_path", str(tmp_path), "--plugin", "stochastok")
    assert both.code == 2 and "name two places" in both.sentence
