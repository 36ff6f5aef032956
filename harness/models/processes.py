"""One of several processes that ``accelerate launch`` started: each holds a whole model and answers its documents."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.models.tree.work import Work


class OneOfSeveral:
    """What an LM of lm-eval's class needs to be one of several.

    Attributes:
        truncated: requests that were cut to fit the context, by task.
        work: what the answers took.
    """

    truncated: Counter[str]
    work: Work
    gather_object: Any

    def join_processes(self) -> None:
        """Be one of several, as ``HFLM`` does not for a model object."""
        from accelerate import Accelerator

        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes

    def join_counts(self) -> None:
        """Add to the first process's ``work`` and ``truncated`` those of the others."""
        gathered = self.gather_object((self.truncated, self.work))
        for truncated, work in (gathered or [])[1:]:
            self.truncated += truncated
            self.work.add(work)
