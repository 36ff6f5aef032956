"""What a board says of itself and of its tasks: ``board.toml`` in its folder.

::

    title = "Token methods on small models"
    about = "Every method beside the untouched model, on a laptop's processor."
    retention = ["plain_text"]

    [links]
    "How to add a row" = "https://example.org/contributing"

    [tasks.langgame]
    about = "Which of four words has a given spelling property?"
    paper = "https://arxiv.org/abs/2506.01687"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from harness.errors import HarnessError
from harness.names import printable

FILE = "board.toml"
MOST_BYTES = 1_000_000
# What a method costs elsewhere is told by these where a board names none: the harness's own task for it.
RETENTION = ("plain_text",)

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000)]
Address = Annotated[str, StringConstraints(pattern=r"^https?://[^\s\"'<>]+$", max_length=2_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TaskSettings(_Part):
    """What a task measures, in one sentence, and the address of its paper."""

    about: Text | None = None
    paper: Address | None = None


class Settings(_Part):
    """A board's own words; all may be left out.

    Attributes:
        title, about: of the board, about in one sentence or two.
        links: addresses by what they are called.
        retention: tasks that tell what a method costs elsewhere; they take no part in ranks.
        tasks: by name.
    """

    title: Text = "Leaderboard"
    about: Text | None = None
    links: dict[Text, Address] = Field(default_factory=dict)
    retention: list[Text] = Field(default_factory=lambda: list(RETENTION))
    tasks: dict[Text, TaskSettings] = Field(default_factory=dict)


def read(folder: Path) -> Settings:
    """Return what ``board.toml`` in a folder says, nothing where there is none.

    Raises:
        HarnessError: it cannot be read, is no TOML, or names what a board does not have.
    """
    file = folder / FILE
    if not file.is_file():
        return Settings()
    shown = printable(file)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise HarnessError(f"'{shown}' has more than {MOST_BYTES:,} bytes; a board's own words are few")
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        return Settings.model_validate(content)
    except OSError as error:
        raise HarnessError(f"cannot read '{shown}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise HarnessError(f"'{shown}' is not UTF-8: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise HarnessError(f"'{shown}' is no TOML: {error}") from error
    except ValidationError as error:
        raise HarnessError(f"'{shown}': {_said(error)}") from error


def _said(error: ValidationError) -> str:
    found = []
    for one in error.errors(include_url=False, include_context=False):
        place = printable(".".join(map(str, one["loc"])))
        known = ", ".join(TaskSettings.model_fields if one["loc"][0] == "tasks" else Settings.model_fields)
        unknown = one["type"] == "extra_forbidden"
        found.append(f"'{place}' is not known; there are {known}" if unknown else f"'{place}': {one['msg']}")
    return "; ".join(found)
