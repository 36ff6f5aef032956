"""Where the user's last words stand in a prompt that a chat template made."""

from __future__ import annotations

from collections.abc import Callable

# Stand for words of the user and the assistant in a template that is looked at.
FIRST, ANSWER, LAST = "\u0001first\u0001", "\u0001answer\u0001", "\u0001last\u0001"


class ChatTemplate:
    """What a template puts before the user's last words and behind them.

    Args:
        render: messages to text, with the beginning of the assistant's answer at the end.
    """

    def __init__(self, render: Callable[[list[dict[str, str]]], str]) -> None:
        self.before, self.between, self.tail = "", "", ""
        user, answer = {"role": "user", "content": FIRST}, {"role": "assistant", "content": ANSWER}
        try:
            self.before, _, self.tail = str(render([user])).partition(FIRST)
            text = str(render([user, answer, {"role": "user", "content": LAST}]))
        except Exception:  # a template is a program of its own, and some take no second question
            text = ""
        self.between = text.partition(ANSWER)[2].partition(LAST)[0]

    def around(self, context: str) -> tuple[str, str]:
        """Return what of ``context`` stands before and behind the user's last words; empty where no template made it."""
        if not self.tail or not context.endswith(self.tail):
            return "", ""
        if self.before and context.startswith(self.before) and self.turn not in context[len(self.before) :]:
            return self.before, self.tail
        place = context.rfind(self.turn) if self.turn else -1
        if place < 0:
            return "", ""
        return context[: place + len(self.turn)], self.tail

    @property
    def turn(self) -> str:
        """What begins a turn of the user, whatever came before it; empty where the template does not show it."""
        if not self.between:
            return self.before
        same = 0
        while self.before.endswith(self.between[len(self.between) - same - 1 :]) and same < len(self.between):
            same += 1
        turn = self.between[len(self.between) - same :]
        # From the last mark on: what ends the turn before is not there after a system's turn.
        return turn[turn.rfind("<") :] if "<" in turn else turn
