"""The exceptions for what a user can correct, or has to know."""

from collections.abc import Iterator


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came of, each once, though they may name one another."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


class HarnessError(Exception):
    """A mistake the user can correct.

    The message is one sentence: what failed, what there is instead, what to do. The command line prints it and exits
    with ``exit_status``; ``--debug`` adds the cause. Everything else is our bug and keeps its traceback.
    """

    exit_status = 2


class Failed(HarnessError):
    """Nothing was wrong with the command, but something it asked for is not there: a score, a file on the disk."""

    exit_status = 1


class NoScore(Failed):
    """A task or group was asked and has no score; asking again would not mend that."""


class Terminated(KeyboardInterrupt):
    """The system asked this process to stop: a cluster that takes its machine back, a closed terminal, a shutdown."""

    def __init__(self, signum: int) -> None:
        """Keep the number of the signal, which decides the exit status."""
        super().__init__()
        self.signum = signum
