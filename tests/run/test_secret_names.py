"""No file, no name of a file and no error of a run holds a token of known shape, or what a secret variable holds."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.redaction import file_name, protect_output
from harness.run import artefacts

pytestmark = pytest.mark.usefixtures("fresh")
Command = Callable[..., Any]
TOKEN = "gh" + "p_FAKE0a1b2c3d4e5f6g7h8i9j0k1l2m"
PASSWORD = "swordfish-of-doom"
LEAVES = """
import json, os
(workdir / "notes.md").write_text("trained on " + os.environ["DEPLOY_PASS"])
(workdir / "deep").mkdir(exist_ok=True)
(workdir / "deep" / "a.json").write_text(json.dumps({"line": "one\\n" + self.login}))
(workdir / "deep" / "rows.jsonl").write_text(json.dumps(["x\\n" + self.login]) + "\\n[1,  2]\\n")
(workdir / "tokenizer.json").write_text(json.dumps({"password": 12345678}))
lm.model.model.norm.weight.data.mul_(2)
return lm
"""


def leaks(folder: Path) -> list[str]:
    """Return which files below a folder hold a secret, or bear one in their names."""
    secrets = (TOKEN[8:], PASSWORD)
    found = [path for path in folder.rglob("*") if any(secret in str(path.relative_to(folder)) for secret in secrets)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [*map(str, found), *(str(path) for path in files if any(s.encode() in path.read_bytes() for s in secrets))]


@pytest.fixture
def named_model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in a folder that has a token in its name; a secret variable is set."""
    monkeypatch.setenv("DEPLOY_PASS", PASSWORD)
    return Path(shutil.copytree(tiny_model, tmp_path / f"model-{TOKEN}"))


def test_a_token_in_the_name_of_a_models_folder_is_in_no_file_and_no_name(
    named_model: Path, evaluate: Command, cli: Command, own_tasks: Path, tmp_path: Path, records: Any
) -> None:
    """Case secret_in_names: an adapter is trained; its card and configuration hold no token either."""
    flags = ["--plugin", "stochastok", "--method_args", "steps=1,batch_size=2,context_length=64", "--with_baseline"]
    done = evaluate(*flags, model=named_model)
    assert done.code == 0 and TOKEN not in done.err + done.out
    assert leaks(Path("out")) == []
    [adapter] = Path("out").glob("*/artefacts/adapter")
    assert json.loads((adapter / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"] is None
    assert str(tmp_path) not in (adapter / "README.md").read_text("utf-8")
    assert leaks(tmp_path / "cache") == []
    assert len(records(Path("out"))) == 2
    assert cli("verify", "out").code == 0, "the samples are found by the names that the records say"
    done = cli("apply", *flags[:4], "--model_args", f"pretrained={named_model}", "--output", "made")
    assert done.code == 0 and leaks(Path("made")) == []


def test_what_a_method_leaves_and_what_tasks_are_called_lose_their_secrets(
    named_model: Path, evaluate: Command, make_method: Callable[..., str], own_tasks: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(own_tasks, tmp_path / "tasks", ignore=shutil.ignore_patterns("*write*", "*long*")))
    text = (folder / "colours.yaml").read_text("utf-8")
    (folder / "colours.yaml").write_text(text.replace("task: colours", f"task: colours_{PASSWORD}"), "utf-8")
    flags = ["--plugin", make_method(LEAVES, members='login: str = ""'), "--method_args", f"login={TOKEN}"]
    done = evaluate(*flags, "--include_path", folder, model=named_model, tasks=f"colours_{PASSWORD}")
    assert done.code == 0 and leaks(Path("out")) == [], done.err
    [left] = Path("out").glob("*/artefacts")
    assert (left / "deep/rows.jsonl").read_text("utf-8").endswith("[1,  2]\n")
    assert json.loads((left / "tokenizer.json").read_text("utf-8")) == {"password": 12345678}


def test_no_error_repeats_a_secret(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_PASS", PASSWORD)
    for words in (
        ["eval", "--limit", PASSWORD], ["eval", "--seed", PASSWORD], ["show", "out", f"--{PASSWORD}"], [PASSWORD],
        ["verify", PASSWORD], ["leaderboard", f"/{TOKEN}"], ["publish", TOKEN, "--to", PASSWORD],
        ["compare", PASSWORD, "--output", PASSWORD],
    ):  # fmt: skip
        done = cli(*words)
        assert PASSWORD not in done.err + done.out and TOKEN not in done.err + done.out, words


def test_warnings_threads_and_tracebacks_are_told_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging
    import sys

    before = logging.getLogRecordFactory()
    for owner, name in (
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
        (warnings, "formatwarning"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    try:
        protect_output()
        assert TOKEN not in warnings.formatwarning(UserWarning(f"with {TOKEN}"), UserWarning, "x.py", 1, "")
        thread = threading.Thread(target=lambda: (_ for _ in ()).throw(ValueError(f"with {TOKEN}")))
        thread.start()
        thread.join()
    finally:
        logging.setLogRecordFactory(before)
    shown = capsys.readouterr().err
    assert "ValueError: with [redacted]" in shown and TOKEN not in shown


def test_names_that_differ_in_their_secrets_alone_stay_apart() -> None:
    names = {file_name(f"model-{TOKEN}{end}") for end in "ab"} | {file_name("model")}
    assert len(names) == 3 and "model" in names


def test_a_text_without_secrets_stays_the_file_it_is(tmp_path: Path) -> None:
    work, target = tmp_path / "work", tmp_path / "artefacts"
    work.mkdir()
    for name, content in {"a.md": "plain", "b.json": "no JSON", "c.jsonl": "{}\n\nnone\n", "d.txt": "\udcff"}.items():
        (work / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    artefacts.save(work, target)
    for path in work.iterdir():
        assert path.samefile(target / path.name)
