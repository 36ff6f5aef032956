"""The task going_on: beginnings of stories, and the words a model goes on with."""

from typing import Any

from datasets import Dataset

BEGINNINGS = ("The clockmaker", "Noon took four minutes", "Children liked", "Customers would ask", "He wrote the hour")


def make(**_: Any) -> dict[str, Dataset]:
    """Return the one split."""
    return {"test": Dataset.from_list([{"beginning": beginning} for beginning in BEGINNINGS])}


def score(doc: dict[str, Any], answers: list[str]) -> dict[str, list[str]]:
    """Return what the metric takes of one document: the words of its text."""
    return {"distinct_2": answers[0].split()}
