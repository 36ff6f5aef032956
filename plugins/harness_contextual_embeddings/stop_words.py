"""English words that say nothing of what a text is about."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.json_lines import read_text

WORDS: Final = (
    "a about above after again against all also am an and any are as at be because been before being below between "
    "both but by can could d did do does doing don down during each few for from further had has have having he her "
    "here hers herself him himself his how i if in into is isn it its itself just ll m me might more most must my "
    "myself no nor not now o of off on once only or other our ours ourselves out over own re s same shall she "
    "should so some such t than that the their theirs them themselves then there these they this those through to "
    "too under until up upon us ve very was wasn we were what when where which while who whom whose why will with "
    "would y you your yours yourself yourselves "
)
ENGLISH: Final = frozenset(WORDS.split())


def stop_words(given: str) -> frozenset[str]:
    """Return the words of the built-in list (``english``), of none (``none``), or of a file with one word a line.

    Raises:
        HarnessError: the file cannot be read.
    """
    if given == "english":
        return ENGLISH
    if given == "none":
        return frozenset()
    return frozenset(word.strip().lower() for word in read_text(Path(given)).split("\n") if word.strip())
