"""The one exception for mistakes a user can correct."""


class HarnessError(Exception):
    """A mistake the user can correct.

    The message is one sentence: what failed, what there is instead, what to do. The command line prints it and exits
    with status 2; ``--debug`` adds the cause. Everything else is our bug and keeps its traceback.
    """
