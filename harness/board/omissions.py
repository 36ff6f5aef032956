"""What is not in the tables of a board, or stands there without a rank: told, and never left out in silence."""

from __future__ import annotations

from dataclasses import dataclass

from harness.names import counted, printable

# Problems named one by one; more are counted.
MOST_NAMED = 20
DOES_NOT_FOLLOW = "contradicted by samples, tasks or counts (marked ✗, last, without a rank)"


@dataclass(frozen=True, slots=True)
class Omissions:
    """What is not in the tables, or stands there without a rank: counts, and the reasons."""

    problems: tuple[str, ...] = ()
    repeated: int = 0
    repeated_with_other_value: int = 0
    contradicted: tuple[str, ...] = ()
    unranked: tuple[tuple[str, int], ...] = ()
    partial: int = 0
    sample_problems: tuple[str, ...] = ()
    withdrawn: tuple[tuple[str, int], ...] = ()


def omission_sentences(omissions: Omissions) -> list[str]:
    """Return what was left out and why, a sentence each; empty when nothing was."""
    said = contradiction_sentences(omissions)
    if omissions.problems:
        said.append(f"{counted(len(omissions.problems), 'line')} could not be read as a record:")
        said += [f"– {problem}" for problem in omissions.problems[:MOST_NAMED]]
        if len(omissions.problems) > MOST_NAMED:
            said.append(f"– and {len(omissions.problems) - MOST_NAMED} more")
    said += [f"{counted(count, 'record')} withdrawn: {printable(reason)}" for reason, count in omissions.withdrawn]
    if omissions.repeated:
        other = f", {omissions.repeated_with_other_value} of them with another value"
        said.append(f"{counted(omissions.repeated, 'record')} replaced by a later one of the same measurement{other}")
    said += [f"{counted(count, 'score')} not ranked: {reason}" for reason, count in omissions.unranked]
    if omissions.partial:
        said.append(f"{counted(omissions.partial, 'row')} not ranked: only part of the task was asked")
    if omissions.sample_problems:
        said.append(f"{counted(len(omissions.sample_problems), 'sample file')} not used for paired differences:")
        said += [f"– {problem}" for problem in omissions.sample_problems[:MOST_NAMED]]
    return said


def contradiction_sentences(omissions: Omissions) -> list[str]:
    """Return which scores do not follow, a sentence each after one that counts them; empty when all do."""
    found = omissions.contradicted
    if not found:
        return []
    more = [f"– and {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    return [f"{counted(len(found), 'score')} {DOES_NOT_FOLLOW}:", *(f"– {one}" for one in found[:MOST_NAMED]), *more]
