"""Tool choice, teacher-forced: which tool row is the best where a call is due, and where tools fire though none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness import HarnessError
from harness.methods.known_texts import questions_in, text_digest
from harness.models.guards import named
from harness_tool_tokens.rows.states import frozen_states
from harness_tool_tokens.rows.texts import FIRST_TOOL, CallPlace, Row, encode_row

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness.models.causal import CausalLM
    from harness_tool_tokens.answering.equipped import Tools


def judge(lm: CausalLM, requests: Sequence[Instance], tools: Tools) -> list[dict[str, Any]]:
    """Return for each request (``ToolTokenLM.tool_choice``) a dict of

    ``word_positions`` and ``false``: places at which a word is due, and how many of them fire a tool;
    ``calls``: for each call the gold ``tool``, the ``best`` one, the gold one's ``rank`` (from 1), whether it ``fires`` (is
    the best and beats every word, bias included), and by how many logits it is ahead of the best word
    (``margin_to_word``) and of the best other tool (``margin_to_tool``; None where there is no other).

    Raises:
        HarnessError: a text was trained on, or calls a tool that there is none of.
    """
    assert tools.head is not None
    encoded = []
    for request in requests:
        text, told = request.args[0], request.args[1]
        is_question = all(call["start"] == len(text) for call in told["calls"])
        texts = [text, *(questions_in(text) if is_question else ())]
        if any(text_digest(one) in tools.trained_on for one in texts):
            raise HarnessError(
                f"{named(request)} is among the rows that the tools were trained on, so its score would mean nothing; give "
                "method and task the same holdout and holdout_seed"
            )
        calls = tuple(CallPlace(call["tool"], call["start"], call["end"]) for call in told["calls"])
        encoded.append(encode_row(lm, Row(str(request.doc_id), text, calls), tools.toolbox))
    states = frozen_states(lm, encoded)
    logits = tools.head.logits(states.hidden)
    answers: list[dict[str, Any]] = [{"word_positions": 0, "false": 0, "calls": []} for _ in requests]
    is_word = states.targets >= 0
    fires = logits.amax(-1) > states.best_word
    for name, counted in (("word_positions", is_word), ("false", is_word & fires)):
        for row, count in enumerate(torch.bincount(states.rows[counted], minlength=len(requests)).tolist()):
            answers[row][name] = count
    for place in (~is_word).nonzero()[:, 0].tolist():
        gold = FIRST_TOOL - int(states.targets[place])
        answer = _call(logits[place], gold, float(states.best_word[place]), tools.toolbox.keys)
        answers[int(states.rows[place])]["calls"].append(answer)
    return answers


def _call(logits: torch.Tensor, gold: int, best_word: float, keys: Sequence[str]) -> dict[str, Any]:
    own, best = float(logits[gold]), int(logits.argmax())
    others = torch.cat([logits[:gold], logits[gold + 1 :]])
    return {
        "tool": keys[gold],
        "best": keys[best],
        # Of equal logits the first tool is the best, as in arg-max.
        "rank": 1 + int((logits > own).sum() + (logits[:gold] == own).sum()),
        "fires": best == gold and own > best_word,
        "margin_to_word": own - best_word,
        "margin_to_tool": own - float(others.max()) if len(others) else None,
    }
