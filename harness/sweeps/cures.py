"""From an error to what is missing, and the command that cures it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from harness.errors import HarnessError, chain
from harness.names import cause_of, printable
from harness.sweeps.fetching import NoRoom

# The command of a package that holds a module of another name; of lm-eval's tasks, the extra that brings all of a kind.
PACKAGES = {
    "bs4": "beautifulsoup4", "sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow", "cv2": "opencv-python",
    "langdetect": "lm_eval[ifeval]", "immutabledict": "lm_eval[ifeval]", "sympy": "lm_eval[math]",
    "math_verify": "lm_eval[math]", "antlr4": "lm_eval[math]", "rouge": "rouge-chinese", "dateutil": "python-dateutil",
    "pkg_resources": "setuptools", "harness": "token-harness",
}  # fmt: skip
SAID = re.compile(r"(?:python3? -m (?:spacy download|nltk\.downloader) [\w.-]+|pip install [\w.\[\]'\"=<>,-]+)")
NLTK = re.compile(r"nltk\.download\(['\"]([\w.-]+)['\"]\)|Resource .*?([a-z][\w.]+).*? not found")
NO_HUB = re.compile(r"couldn't reach|couldn't connect|connection (?:error|refused|reset)|max retries|timed out|offline|"
                    r"forbids looking on the hub|name resolution|the hub is off", re.IGNORECASE)  # fmt: skip
NO_ACCESS = re.compile(r"gated|restricted|\b40[13]\b|access to (?:model|dataset)|not authori[sz]ed", re.IGNORECASE)
NOT_FOUND = re.compile(
    r"not a valid model identifier|doesn't exist on the hub|repository not found|\b404\b", re.IGNORECASE
)
NO_SPACE = re.compile(r"no space left", re.IGNORECASE)
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Missing:
    """Something that is not there, or not right.

    Attributes:
        what: a model, method or task, as people call it.
        why: the sentence that tells it.
        cure: the command that cures it; empty where none is known.
        is_mistake: it has to be put right in the command or the file; nothing that is fetched would help.
    """

    what: str
    why: str
    cure: str
    is_mistake: bool


def missing(what: str, error: BaseException, *, again: str, place: str | None = None) -> Missing:
    """Return what is missing after an error.

    Args:
        what: could not be loaded.
        again: the command that was given, for what another try may cure.
        place: the name on the Hub, where it has one.
    """
    causes = list(chain(error))
    text = " ".join(cause_of(one) for one in causes)
    why = printable(error) if isinstance(error, HarnessError) else _in_a_sentence(causes, error, place)
    cure = _cure(causes, text, again=again, place=place or _named_place(text))
    return Missing(what, why, cure or "", is_mistake=cure is None)


def _cure(causes: list[BaseException], text: str, *, again: str, place: str | None) -> str | None:
    """Return the command that cures an error, empty where it has none, None where something has to be put right."""
    absent = next((one.name for one in causes if isinstance(one, ModuleNotFoundError) and one.name), None)
    if absent is not None:
        top = absent.split(".")[0]
        return f"pip install {shlex.quote(PACKAGES.get(top, top))}"
    said = SAID.search(text)
    if said:
        return said.group()
    nltk = NLTK.search(text) if "nltk" in text.lower() else None
    if nltk:
        return f"python -m nltk.downloader {nltk.group(1) or nltk.group(2)}"
    if any(isinstance(one, NoRoom) for one in causes) or NO_SPACE.search(text):
        return f"HF_HOME=/a/folder/with/room {again}"
    if NO_HUB.search(text):
        return f"env -u HF_HUB_OFFLINE -u HF_DATASETS_OFFLINE {again}    # where {HUB} can be reached"
    if NOT_FOUND.search(text):
        return "hf auth login    # if it is private; otherwise it has another name"
    if NO_ACCESS.search(text) and place:
        return f"hf auth login    # and ask for access at {HUB}/{place}"
    return None


def _in_a_sentence(causes: list[BaseException], error: BaseException, place: str | None) -> str:
    """Return what foreign code raised, of the Hub's client in words that fit one line."""
    kinds, named = {type(one).__name__ for one in causes}, f"'{printable(place)}'"
    if "GatedRepoError" in kinds:
        return f"the Hub gives {named} only to those who were granted access"
    if "RepositoryNotFoundError" in kinds:
        return f"the Hub has no {named} that you may read"
    if "RevisionNotFoundError" in kinds:
        return f"{named} has no such revision on the Hub"
    return " ".join(cause_of(error).replace("\u240a", " ").split())[:300]


def _named_place(text: str) -> str | None:
    """Return the repository that an error names."""
    found = re.search(
        r"['\"]?([\w.-]+/[\w.-]+)['\"]? (?:is a gated|on the Hub)|huggingface\.co/(?:datasets/)?([\w.-]+/[\w.-]+)", text
    )
    return next((part for part in found.groups() if part), None) if found else None
