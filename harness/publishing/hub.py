"""Records and samples to a data set on the Hugging Face Hub, as one pull request, however often it is tried."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import Failed, HarnessError
from harness.names import printable, safe_name
from harness.publishing.files import PlannedFile, compressed, planned, write_all
from harness.publishing.selection import Item
from harness.records import samples
from harness.redaction import redact

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Answer = TypeVar("Answer")
TRIES = 5
LONGEST_WAIT = 60.0
TIMEOUT = 60.0
RETRIED = {408, 425, 429, 500, 502, 503, 504}
FOLDER = "records"
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?/[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)
CARD = """\
---
configs:
- config_name: records
  data_files: records/*.jsonl
  default: true
- config_name: samples
  data_files: records/samples/*.jsonl.gz
tags:
- token-harness
---

# Evaluation records

Made with token-harness. `records/*.jsonl` holds one line for each metric of each run, with all that is needed to repeat
it; `records/samples` holds what was asked and answered, one file for each task of a run, named by its SHA-256.
Download the folder, then: `harness leaderboard FOLDER`, `harness verify FOLDER`, `harness compare`.
"""


@dataclass(frozen=True)
class Upload:
    """What became of an upload: ``new`` pull request, ``open`` already, or ``nothing`` new; where to look."""

    state: str
    url: str


def check_name(repository: str) -> None:
    """Refuse what cannot be the name of a data set, before anything is prepared or sent.

    Raises:
        HarnessError: it is no ``OWNER/NAME``.
    """
    if not _NAME.fullmatch(repository) or "--" in repository or ".." in repository:
        raise HarnessError(f"'{printable(repository)}' is no data set on the Hub; --to hub takes OWNER/NAME")


def plan(items: Sequence[Item]) -> list[PlannedFile]:
    """Return the files for the data set: one of records for each task of a run, and sample files named by content.

    Equal records give equal names and bytes, and no file is shared by two runs, so nothing there is ever overwritten by
    somebody else's.
    """
    runs: dict[str, list[Item]] = {}
    for item in items:
        name = f"{safe_name(item.record.task.name)[:80]}-{item.record.run_key()}"
        runs.setdefault(name, []).append(item)
    files = {item.samples.sha256: item.samples for item in items if item.samples is not None}
    return [
        *(
            PlannedFile(PurePosixPath(FOLDER, samples.published_name(sha256)), lambda file=file: compressed(file.blocks()))  # type: ignore[misc]
            for sha256, file in files.items()
        ),
        *(
            planned(PurePosixPath(FOLDER, f"{name}.jsonl"), "".join(item.record.to_line() + "\n" for item in run))
            for name, run in runs.items()
        ),
    ]  # fmt: skip


def upload(
    files: Sequence[PlannedFile],
    repository: str,
    *,
    say: Callable[[str], None],
    endpoint: str | None = None,
    timeout: float = TIMEOUT,
    sleep: Callable[[float], None] = time.sleep,
) -> Upload:
    """Open a pull request that adds ``files`` to the data set ``repository``; one for a set of files, not two.

    What is there already is not sent again. After a failure that may pass (429, 5xx, a dropped connection) it looks
    whether the pull request came to be all the same before it tries again.

    Args:
        endpoint: address of the Hub, by default the client's (``HF_ENDPOINT``).
        timeout: seconds the Hub may be silent.

    Raises:
        HarnessError: the Hub refuses (login, permission, no such data set, conflict).
        Failed: the Hub could not be reached, or kept failing.
    """
    from huggingface_hub import HfApi

    check_name(repository)
    _limit_waiting(timeout)
    api = HfApi(endpoint=endpoint, library_name="token-harness")
    title = f"Add {len(files)} files of token-harness ({_digest(files)})"
    with TemporaryDirectory(prefix="harness-publish-") as folder:
        write_all(files, Path(folder), dry_run=False)

        def attempt() -> Upload:
            found = _proposed(api, repository, title)
            return found or _propose(api, repository, Path(folder), files, title)

        return _tried(attempt, repository, say, sleep)


def _propose(api: HfApi, repository: str, folder: Path, files: Sequence[PlannedFile], title: str) -> Upload:
    from huggingface_hub import CommitOperationAdd

    asked = ["README.md", *(str(file.path) for file in files if file.path.suffix == ".gz")]
    there = {found.path for found in api.get_paths_info(repository, asked, repo_type="dataset")}
    # A file named by its content need not be sent again; a card is its owner's.
    wanted = [CommitOperationAdd(str(file.path), folder / file.path) for file in files if str(file.path) not in there]
    if "README.md" not in there:
        wanted.append(CommitOperationAdd("README.md", CARD.encode("utf-8")))
    # Not `upload_folder`: with Xet it sends several commits and repeats them blindly, and each would be a pull request.
    commit = api.create_commit(
        repository, wanted, commit_message=title, commit_description=_DESCRIPTION, repo_type="dataset", create_pr=True
    )
    if commit.pr_url is None:
        return Upload("nothing", commit.commit_url)
    return Upload("new", commit.pr_url)


_DESCRIPTION = "Records and samples of evaluations. `harness verify` recomputes the scores from the samples."


def _proposed(api: HfApi, repository: str, title: str) -> Upload | None:
    """Return the open pull request with these very files, when there is one."""
    for discussion in api.get_repo_discussions(
        repository, repo_type="dataset", discussion_type="pull_request", discussion_status="open"
    ):
        if discussion.title == title:
            return Upload("open", f"{discussion.endpoint}/datasets/{repository}/discussions/{discussion.num}")
    return None


def _tried(
    attempt: Callable[[], Answer], repository: str, say: Callable[[str], None], sleep: Callable[[float], None]
) -> Answer:
    """Return what ``attempt`` gives, asked again after failures that pass."""
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except Exception as error:
            sentence, is_passing = _explained(error, repository)
            if sentence is None:
                raise
            if not is_passing:
                raise HarnessError(sentence) from error
            if number == TRIES:
                raise Failed(
                    f"{sentence}; given up after {TRIES} tries, nothing here was changed: run it again"
                ) from error
            wait = _wait(error, number)
            say(f"{sentence}; try {number + 1} of {TRIES} in {wait:g} s")
            sleep(wait)
    raise AssertionError("unreachable")


def _explained(error: Exception, repository: str) -> tuple[str | None, bool]:
    """Return an error of the client as a sentence, and whether it may pass by itself; None when it is not of the Hub."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    name = printable(repository)
    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is switched off by HF_HUB_OFFLINE; unset it to publish there", False
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no login for the Hub; run `hf auth login` or set HF_TOKEN", False
    # The storage's errors come wrapped by the uploader's.
    cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return _refused(cause, name)
    module = type(cause or error).__module__.partition(".")[0]
    if isinstance(error, OSError | json.JSONDecodeError) or module in {
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "requests",
    }:
        return f"the connection to the Hub failed ({type(cause or error).__name__})", True
    if isinstance(error, ValueError):
        return f"the Hub answered what its client does not understand ({printable(redact(str(error)))[:200]})", False
    return None, False


def _refused(error: Any, name: str) -> tuple[str, bool]:
    status = error.response.status_code if error.response is not None else 0
    sentences = {
        401: "the Hub does not know this login (401), or hides '{}' from it; run `hf auth login` or set HF_TOKEN",
        403: "this login may not open a pull request on '{}' (403); it takes a token with write access to discussions",
        404: "there is no data set '{}' on the Hub (404); `hf repos create {} --repo-type dataset` makes one",
        409: "the Hub reports a conflict on '{}' (409): somebody changes it at this moment; run it again later",
        412: "'{}' was changed while this was sent (412); run it again",
        413: "a file is too large for the Hub (413); publish the results in parts",
    }
    if status in sentences:
        return sentences[status].format(name, name), False
    if status in RETRIED:
        return f"the Hub is too busy or failing ({status})", True
    detail = printable(redact(str(error.server_message or error).splitlines()[0] if str(error) else ""))[:200]
    return f"the Hub refused it ({status}: {detail})", False


def _wait(error: Exception, number: int) -> float:
    """Return how many seconds to wait: what the Hub asks for, else twice as long each time."""
    response = getattr(error, "response", None)
    asked = response.headers.get("retry-after", "") if response is not None else ""
    return min(LONGEST_WAIT, float(asked) if asked.isdigit() else 2.0 ** (number - 1))


def _limit_waiting(seconds: float) -> None:
    """Give every request a time limit: the client's own is none, and a silent server would hold a run for ever."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def factory() -> Any:
        client: Any = default_client_factory()
        client.timeout = seconds
        return client

    set_client_factory(factory)


def _digest(files: Sequence[PlannedFile]) -> str:
    """Return 16 digits that name a set of files: names, and contents of those that are not named by their content."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: str(file.path)):
        digest.update(f"{file.path}\0".encode())
        if file.path.suffix != ".gz":
            for block in file.blocks():
                digest.update(block)
    return digest.hexdigest()[:16]
