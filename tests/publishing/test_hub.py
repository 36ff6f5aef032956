"""Publishing to the Hub comes to exactly one pull request, or says why not and leaves everything as it was."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hub_stand_in import DROP, DROP_AFTER, NO_JSON, REPOSITORY, SILENT, TOKEN, Hub, running_hub

from harness.errors import HarnessError
from harness.publishing.hub import TRIES, Upload, check_name, plan, upload
from harness.publishing.selection import select
from harness.records import ledger
from harness.verifying import verify


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Hub, str]]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running_hub() as running:
        yield running


def _publish(results: Path, address: str) -> Upload:
    items = select(results, allow_partial=False, skip_refused=False, note=lambda _: None).items
    return upload(
        plan(items), REPOSITORY, say=lambda _: None, endpoint=address, timeout=0.5, sleep=lambda seconds: None
    )


def _state(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_records_and_samples_become_one_pull_request_that_verifies(
    results: Path, hub: tuple[Hub, str], tmp_path: Path
) -> None:
    server, address = hub
    before = _state(results)
    done = _publish(results, address)
    assert done.state == "new" and done.url == f"{address}/datasets/{REPOSITORY}/discussions/1"
    [(title, files)] = server.requests
    assert title.startswith(f"Add {len(files) - 1} files of token-harness (")
    assert "README.md" in files
    assert _state(results) == before
    for path, content in files.items():
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(content)
    reading = ledger.read(tmp_path / "copy")
    assert len(reading.records) == 4
    assert verify.examine(reading, tmp_path / "copy").follow == 4
    assert all(gzip.decompress(content) for path, content in files.items() if path.endswith(".gz"))


def test_what_is_proposed_or_merged_is_not_sent_again(results: Path, hub: tuple[Hub, str]) -> None:
    server, address = hub
    _publish(results, address)
    again = _publish(results, address)
    assert again.state == "open" and len(server.requests) == 1
    server.merge()
    sent = len(server.storage)
    merged = _publish(results, address)
    assert merged.state == "nothing"
    assert (len(server.requests), len(server.storage)) == (0, sent)


def test_a_card_that_is_there_stays(results: Path, hub: tuple[Hub, str]) -> None:
    server, address = hub
    server.files["README.md"] = b"the owner's own words"
    _publish(results, address)
    assert "README.md" not in server.requests[0][1]


PASSING = [
    (kind, failure)
    for kind in ("discussions", "paths", "preupload", "lfs", "storage", "commit")
    for failure in (429, 500, 503, DROP)
] + [
    ("commit", DROP_AFTER),
    ("storage", DROP_AFTER),
    ("preupload", DROP_AFTER),
    ("commit", SILENT),
    ("discussions", SILENT),
    ("paths", NO_JSON),
    ("commit", NO_JSON),
    ("yaml", 500),
    ("yaml", NO_JSON),
]
REFUSED = [
    (kind, status, word)
    for kind in ("discussions", "paths", "commit")
    for status, word in (
        (401, "hf auth login"),
        (403, "may not open a pull request"),
        (404, "hf repos create"),
        (409, "conflict"),
    )
]


@pytest.mark.parametrize(("kind", "failure"), PASSING)
def test_a_failure_that_passes_ends_in_one_pull_request(
    kind: str, failure: int | str, results: Path, hub: tuple[Hub, str]
) -> None:
    server, address = hub
    before = _state(results)
    server.failures[kind] = [failure]
    done = _publish(results, address)
    assert done.state in {"new", "open"}
    assert len(server.requests) == 1
    assert _publish(results, address).state == "open"
    assert len(server.requests) == 1
    assert _state(results) == before


@pytest.mark.parametrize(("kind", "status", "word"), REFUSED)
def test_a_refusal_is_a_sentence_and_nothing_is_proposed(
    kind: str, status: int, word: str, results: Path, hub: tuple[Hub, str]
) -> None:
    server, address = hub
    before = _state(results)
    server.failures[kind] = [status]
    with pytest.raises(HarnessError, match=word) as caught:
        _publish(results, address)
    assert caught.value.exit_status == 2 and "\n" not in str(caught.value)
    assert server.requests == []
    assert _state(results) == before


@pytest.mark.parametrize("failure", [429, 500, DROP])
def test_a_hub_that_keeps_failing_is_given_up_with_a_sentence(
    failure: int | str, results: Path, hub: tuple[Hub, str]
) -> None:
    server, address = hub
    server.failures["commit"] = [failure] * 100
    with pytest.raises(HarnessError, match="given up after 5 tries") as caught:
        _publish(results, address)
    assert caught.value.exit_status == 1
    assert server.calls.count("commit") == TRIES
    assert server.requests == []


def test_a_login_that_the_hub_does_not_know_is_told(
    results: Path, hub: tuple[Hub, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf" + "_" + "wrong" * 7)
    with pytest.raises(HarnessError, match="401") as caught:
        _publish(results, hub[1])
    assert "wrongwrong" not in str(caught.value)


@pytest.mark.parametrize("name", ["evaluations", "a/b/c", "../x", "a--b/c", "ada/", "https://x.org/a"])
def test_what_is_no_name_of_a_data_set_is_refused_before_anything_is_sent(name: str, results: Path) -> None:
    with pytest.raises(HarnessError, match="OWNER/NAME"):
        check_name(name)


def test_the_command_publishes_through_the_client_s_own_endpoint(
    results: Path, harness: Callable[..., CompletedProcess[str]]
) -> None:
    with running_hub() as (server, address):
        environment = os.environ | {
            "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        words = ("publish", results, "--to", "hub", REPOSITORY)
        dry = harness(*words, "--dry-run", env=environment)
        assert dry.returncode == 0, dry.stderr
        assert server.calls == []
        assert "as one pull request" in dry.stdout
        done = harness(*words, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"opened {address}/datasets/{REPOSITORY}/discussions/1\n"
        again = harness(*words, env=environment)
        assert again.returncode == 0 and again.stdout.startswith("already published")
        server.requests = []
        server.failures["commit"] = [403]
        refused = harness(*words, env=environment)
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1].startswith("harness: this login may not open a pull request")
        assert TOKEN not in done.stdout + done.stderr + refused.stderr


def test_offline_mode_is_told(results: Path, harness: Callable[..., CompletedProcess[str]]) -> None:
    done = harness("publish", results, "--to", "hub", REPOSITORY, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE" in done.stderr.splitlines()[-1]
