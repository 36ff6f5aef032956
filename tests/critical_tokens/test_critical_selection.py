"""Critical tokens from counts of right rollouts, and how sure they are, against golden numbers."""

from __future__ import annotations

import critical_golden
import pytest

from harness import HarnessError
from harness_critical_tokens.selection import Selection, critical_token, drop_test, pass_at_k, upper_bound

STATISTICS = critical_golden.rows("rollout_statistics")


@pytest.mark.parametrize("case", critical_golden.rows("critical_selection"), ids=lambda case: case["id"])
def test_selection_is_the_golden_one(case):
    """Property 21: critical, fallback and drop, prefixes without rollouts included."""
    found = critical_token(case["counts"], case["rollouts"])
    assert found == Selection(case["critical"], case["fallback"])
    assert drop_test(case["counts"], case["rollouts"]) == case["drop"]


@pytest.mark.parametrize("case", STATISTICS, ids=lambda case: case["id"])
def test_statistics_are_the_golden_ones(case):
    """Property 22: upper bounds and Pass@k to 1e-12."""
    found = (
        upper_bound(case["n"], case["confidence"])
        if "confidence" in case
        else pass_at_k(case["n"], case["c"], case["k"])
    )
    assert found == pytest.approx(case["value"], abs=1e-12)


def test_counts_that_cannot_be_are_said_in_one_sentence():
    for rule in (critical_token, drop_test):
        with pytest.raises(HarnessError, match="token 1 has 9 right rollouts of 8"):
            rule([8, 9], 8)
        with pytest.raises(HarnessError, match="0 rollouts from a prefix say nothing"):
            rule([], 0)
    for arguments, words in (((4, 5, 1), "5 of 4 rollouts"), ((4, 1, 5), "Pass@5"), ((4, 1, 0), "Pass@0")):
        with pytest.raises(HarnessError, match=words):
            pass_at_k(*arguments)
    with pytest.raises(HarnessError, match="confidence 1"):
        upper_bound(8, 1)
