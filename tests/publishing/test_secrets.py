"""Twelve planted secrets, looked for in every file, log, error and request that a run and its publication leave."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import shutil
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forked_runs import ForkedRuns
from hub_stand_in import REPOSITORY, TOKEN, running_hub

pytestmark = pytest.mark.xdist_group("runs")
LETTERS = string.ascii_letters + string.digits


def _letters(count: int, letters: str = LETTERS) -> str:
    return "".join(_RANDOM.choice(letters) for _ in range(count))


_RANDOM = random.Random(49)
# Made here, so that no scanner takes them for real; by the place they are planted in.
SECRETS = {
    "model_args": "hf" + "_" + _letters(34),
    "method option": "sk" + "-proj-" + _letters(40),
    "method option, URL": f"ada:{_letters(12)}",
    "environment": _letters(24),
    "exception text": "gh" + "p_" + _letters(36),
    "git remote": "github" + "_pat_" + _letters(40),
    "model output": "AK" + "IA" + _letters(16, string.ascii_uppercase),
    "model output, header": "b1" + _letters(30),
    "document": "xox" + "b-" + _letters(24, string.digits),
    "command, metadata": "plain words " + _letters(6),
    "system instruction": "AI" + "za" + _letters(35),
    "log": ".".join(("ey" + "J" + _letters(20), "ey" + "J" + _letters(40), _letters(43))),
}
PLUGIN = """
    from __future__ import annotations

    import logging
    import os
    from dataclasses import dataclass
    from pathlib import Path
    from typing import ClassVar

    import torch

    from harness import hookimpl


    @dataclass(frozen=True)
    class Leaky:
        \"\"\"Writes secrets wherever a method can.

        Options:
            login: a token.
            address: a URL with a password.
            mood: ``fail`` raises.
        \"\"\"

        name: ClassVar[str] = "leaky"
        login: str = ""
        address: str = ""
        mood: str = "well"

        def apply(self, lm, *, seed: int, workdir: Path):
            logging.getLogger("leaky").warning("signed in with %s", os.environ["TEST_JWT"])
            if self.mood == "fail":
                raise ValueError("refused for " + os.environ["TEST_RAISED"])
            with torch.no_grad():
                lm.model.get_input_embeddings().weight.add_(0.01)
            written = " ".join([
                os.environ["TEST_API_TOKEN"], os.environ["TEST_WRITTEN"], "Authorization: Bearer " + os.environ["TEST_BEARER"],
            ])
            lm.generate_until = lambda requests, **_: [written for _ in requests]
            return lm


    @hookimpl
    def harness_methods():
        return [Leaky]
"""
TASK = """\
task: {name}
custom_dataset: !function data.make
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["green", "white"]
doc_to_target: {target}
generation_kwargs:
  until: ["."]
  max_gen_toks: 8
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
DATA = """\
import os

from datasets import Dataset


def make(**_):
    return {{"test": Dataset.from_list([{{"question": "My key is {secret}. Grass is", "answer": n % 2}} for n in range(4)])}}
"""


@dataclass
class Left:
    """What commands left: everything they printed, and every file below ``folder``."""

    folder: Path
    printed: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Yield everything to look through, unpacked, with a name."""
        yield from (("printed", text.encode("utf-8", "surrogateescape")) for text in self.printed)
        yield from (("sent", body) for body in self.sent)
        for path in sorted(self.folder.rglob("*")):
            # Weights and adapters are the method's; what it plants in its own files is not ours to change.
            if path.is_file() and "planted" not in path.parts:
                raw = path.read_bytes()
                yield str(path.relative_to(self.folder)), gzip.decompress(raw) if path.suffix == ".gz" else raw


def _unpacked(body: bytes) -> bytes:
    """Return what a request carries, files inside it decoded."""
    parts = [body]
    for line in body.split(b"\n"):
        try:
            value = json.loads(line)["value"]
            parts.append(base64.b64decode(value["content"]))
        except (ValueError, KeyError, TypeError):
            continue
    if b"\n\x1f\x8b" in body:
        parts.append(gzip.decompress(body.partition(b"\n")[2]))
    return b"\n".join(parts)


def _spellings(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield json.dumps(secret)[1:-1].encode()
    yield base64.b64encode(secret.encode())
    # A part of a token is a leak, too.
    yield secret.rpartition("_")[2][-12:].encode() if " " not in secret else secret[-6:].encode()


@pytest.fixture(scope="module")
def left(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, runs: ForkedRuns) -> Left:
    """Run, fail, publish everywhere, look at all of it; everything below one folder."""
    home = tmp_path_factory.mktemp("home") / "ada-of-the-secrets"
    planted, work = home / "planted", home / "work"
    work.mkdir(parents=True)
    shutil.copytree(tiny_model, planted / SECRETS["model_args"] / "tiny")
    _plant(planted, work)
    environment = os.environ | {
        "HOME": str(home),
        "HARNESS_CACHE": str(home / "cache"),
        "PYTHONPATH": os.pathsep.join([str(planted / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TEST_API_TOKEN": SECRETS["environment"],
        "TEST_WRITTEN": SECRETS["model output"],
        "TEST_BEARER": SECRETS["model output, header"],
        "TEST_RAISED": SECRETS["exception text"],
        "TEST_JWT": SECRETS["log"],
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }
    found = Left(home)

    def harness(*words: object, status: int = 0) -> None:
        done = runs.run(words, work, environment=environment)
        found.printed += [done.out, done.err]
        assert done.code == status, done.err

    def process(*words: object, status: int = 0, **more: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *map(str, words)],
            capture_output=True, text=True, check=False, cwd=work, env=environment | more, timeout=300,
        )  # fmt: skip
        found.printed += [done.stdout, done.stderr]
        assert done.returncode == status, done.stderr

    _run_all(harness, process, planted, found)
    return found


def _plant(planted: Path, work: Path) -> None:
    import textwrap

    site, tasks = planted / "site", planted / "tasks"
    info = site / "leaky-1.0.dist-info"
    info.mkdir(parents=True)
    tasks.mkdir()
    (site / "leaky_plugin.py").write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[harness]\nleaky = leaky_plugin\n", encoding="utf-8")
    (tasks / "data.py").write_text(DATA.format(secret=SECRETS["document"]), encoding="utf-8")
    for name, kind, metric, target in (
        ("choose", "multiple_choice", "acc", "answer"),
        ("write", "generate_until", "exact_match", '"{{answer}}"'),
    ):
        text = TASK.format(name=name, kind=kind, metric=metric, target=target)
        (tasks / f"{name}.yaml").write_text(text, encoding="utf-8")
    git = shutil.which("git")
    if git is not None:
        subprocess.run([git, "init", "--quiet"], cwd=work, check=True)
        remote = f"https://{SECRETS['git remote']}@git.example.org/ada/work.git"
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run([git, *who, "commit", "--quiet", "--allow-empty", "-m", "x"], cwd=work, check=True)
        subprocess.run([git, "remote", "add", "origin", remote], cwd=work, check=True)
        (work / ".git").rename(planted / "git")
        (work / ".git").write_text(f"gitdir: {planted / 'git'}\n", encoding="utf-8")


def _run_all(harness: Callable[..., None], process: Callable[..., None], planted: Path, found: Left) -> None:
    """Call everything: ``process`` what reads its environment while it is imported, and one run in its whole length."""
    options = f"login={SECRETS['method option']},address=https://{SECRETS['method option, URL']}@db.example.org/x"
    run = [
        "eval", "--plugin", "leaky", "--include_path", planted / "tasks", "--tasks", "choose,write",
        "--model_args", f"pretrained={planted / SECRETS['model_args'] / 'tiny'},revision={SECRETS['model_args']}",
        "--metadata", json.dumps({"password": SECRETS["command, metadata"]}),
        "--system_instruction", f"Use {SECRETS['system instruction']} when asked.", "--output_path", "results",
    ]  # fmt: skip
    harness("eval", "--model_args", f"token={SECRETS['model_args']},tokenizer={SECRETS['model_args']}", status=2)
    process(*run, "--method_args", options, "--with_baseline")
    harness(*run, "--method_args", f"{options},mood=fail", "--debug", status=1)
    harness(*run, "--method_args", f"{options},mood=fail", status=2)
    for words in (["verify", "results"], ["leaderboard", "results", "-o", "board.md", "-o", "board.html"]):
        harness(*words)
    publish = ["publish", "results"]
    harness(*publish, "--to", "board", "--dry-run")
    harness(*publish, "--to", "board")
    harness("verify", "board")
    harness("leaderboard", "board", "--check")
    harness(*publish, "--to", "eee", "eee", "--developer", "ada")
    harness(*publish, "--to", "card", "card", "--source-url", "https://example.org/records")
    harness(*publish, "--to", "lm-eval", "lm-eval")
    with running_hub() as (server, address):
        process(*publish, "--to", "hub", REPOSITORY, HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
        server.failures["commit"] = [403]
        server.requests = []
        process(*publish, "--to", "hub", REPOSITORY, status=2, HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
        found.sent += [_unpacked(body) for body in server.bodies]


@pytest.mark.parametrize("place", SECRETS)
def test_a_secret_is_nowhere(place: str, left: Left) -> None:
    found = [
        (name, spelling) for name, text in left.texts() for spelling in _spellings(SECRETS[place]) if spelling in text
    ]
    assert found == []


def test_neither_home_folder_nor_login_is_told(left: Left) -> None:
    # On the terminal and in hidden working files of this machine paths may be whole.
    published = ("work/board", "work/eee", "work/card", "work/lm-eval", "work/results")
    for name, text in left.texts():
        assert TOKEN.encode() not in text, name
        if (name.startswith(published) and "/." not in name) or name == "sent":
            assert b"ada-of-the-secrets" not in text, name


def test_the_search_finds_what_is_there(left: Left) -> None:
    """The texts are those the secrets were written into: masks stand where they were, and nothing was skipped."""
    texts = dict(left.texts())
    kinds = ("records_choose", "samples_write", "results_", "command.txt", "work/board/index.html", "work/board/README.md",
             "_samples.jsonl", "work/card/", "work/lm-eval/", "board.html", "work/board/records/samples/")  # fmt: skip
    for kind in kinds:
        assert any(kind in name for name in texts), kind
    masked = [name for name, text in texts.items() if b"[redacted]" in text]
    for kind in (
        "records_",
        "samples_write",
        "samples_choose",
        "command.txt",
        "_samples.jsonl",
        "work/card/",
        "results_",
    ):
        assert any(kind in name for name in masked), kind
    sent = [text for name, text in left.texts() if name == "sent"]
    assert any(b"[redacted]" in text for text in sent)
    assert any(b"[redacted]" in text.encode() for text in left.printed)
