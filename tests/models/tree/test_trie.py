"""Requests as a tree: merging loses nothing, and a plan shows each token exactly what stands before it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from harness.models.tree.trie import Pack, Trie, plan


def random_sequences(seed: int) -> list[list[int]]:
    """Return sequences of few different ids, most of them going on from a part of another."""
    generator = random.Random(seed)
    letters = generator.choice([1, 2, 4, 50_000])
    sequences: list[list[int]] = []
    for _ in range(generator.randint(1, 40)):
        start: list[int] = []
        if sequences and generator.random() < 0.7:
            other = generator.choice(sequences)
            start = other[: generator.randint(0, len(other))]
        sequences.append(start + [generator.randrange(letters) for _ in range(generator.randint(1, 12))])
    return sequences


def prefixes(sequences: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(sequence[:stop]) for sequence in sequences for stop in range(1, len(sequence) + 1)}


def check_plan(trie: Trie, packs: list[Pack], budget: int) -> int:
    """Follow a plan as a model would; fail where a token sees too much or too little; return the tokens pushed."""
    seen: set[int] = set()
    trunks: dict[int, list[int]] = {}
    for pack in packs:
        assert len(pack.positions) <= budget or len(pack.units) == 1
        fresh = {}
        for unit in pack.units:
            above = trunks[unit.trunk] if unit.trunk >= 0 else []
            visible = [*above, *unit.positions.tolist()]
            chain = visible[: len(above) + unit.stem]
            assert trie.depth[chain].tolist() == list(range(len(chain))), "trunk and stem are one chain from the root"
            for place, position in enumerate(unit.positions.tolist(), len(above)):
                before = [other for other in visible[:place] if other < position < trie.end[other]]
                assert trie.depth[before].tolist() == list(range(trie.depth[position])), "sees its own ancestors, all"
            if unit.becomes >= 0:
                assert unit.stem == len(unit), "a trunk is a chain"
                assert unit.becomes not in trunks
                fresh[unit.becomes] = visible
        seen |= set(pack.positions.tolist())
        trunks |= fresh
        for number in pack.done:
            del trunks[number]
    assert not trunks, "no trunk is kept to the end"
    assert seen == set(range(len(trie)))
    return sum(len(pack.positions) for pack in packs)


@pytest.mark.parametrize("seed", range(60))
def test_the_tree_has_each_distinct_prefix_once_and_every_sequence_reads_off_its_path(seed: int) -> None:
    """Demand: nothing is lost or doubled by merging."""
    sequences = random_sequences(seed)
    trie = Trie.build(sequences, [len(sequence) for sequence in sequences])
    assert len(trie) == len(prefixes(sequences))
    for sequence, path in zip(sequences, trie.paths, strict=True):
        assert trie.token_ids[path].tolist() == sequence
        assert trie.depth[path].tolist() == list(range(len(sequence)))


@pytest.mark.parametrize("seed", range(60))
def test_ancestors_are_told_by_position_and_end_alone(seed: int) -> None:
    """Demand: ``a <= b < end[a]`` holds for ancestors and for nothing else, which masks are made from."""
    sequences = random_sequences(seed)
    trie = Trie.build(sequences, [len(sequence) for sequence in sequences])
    above: dict[int, set[int]] = {}
    for path in trie.paths:
        for place, position in enumerate(path.tolist()):
            above[position] = set(path[: place + 1].tolist())
    for position, ancestors in above.items():
        assert {a for a in range(len(trie)) if a <= position < trie.end[a]} == ancestors


@pytest.mark.parametrize("seed", range(20))
def test_a_path_holds_as_many_last_positions_as_asked_for(seed: int) -> None:
    """Demand: only what is to be scored is kept, and it is the end of the sequence."""
    sequences = random_sequences(seed)
    generator = random.Random(seed)
    wanted = [generator.randint(1, len(sequence)) for sequence in sequences]
    whole = Trie.build(sequences, [len(sequence) for sequence in sequences])
    for part, path, count in zip(Trie.build(sequences, wanted).paths, whole.paths, wanted, strict=True):
        assert part.tolist() == path[len(path) - count :].tolist()


@pytest.mark.parametrize("seed", range(150))
def test_any_plan_shows_each_position_exactly_its_ancestors(seed: int) -> None:
    """Demand: every position is pushed, with its trunks known and freed, whatever the budget and the costs."""
    generator = random.Random(seed)
    trie = Trie.build(sequences := random_sequences(seed), [1] * len(sequences))
    budget = generator.choice([1, 4, 16, 64, 1000])
    packs = plan(
        trie, budget, branch_tokens=generator.choice([0, 3, 512]), trunk_cost=generator.choice([-1, 0, 16, 1000])
    )
    check_plan(trie, packs, budget)


def test_ample_room_means_no_token_is_pushed_twice() -> None:
    """Demand: with room for everything in one pass, pushed is what is distinct."""
    for seed in range(30):
        trie = Trie.build(sequences := random_sequences(seed), [1] * len(sequences))
        assert check_plan(trie, plan(trie, 10_000), 10_000) == len(trie)


def test_a_thousand_requests_that_begin_with_each_other_are_one_chain() -> None:
    """Demand: depth is no recursion, and 1000 nested requests cost the longest of them."""
    generator = random.Random(0)
    longest = [generator.randrange(9) for _ in range(3000)]
    sequences = [longest[: 3 * count] for count in range(1, 1001)]
    generator.shuffle(sequences)
    trie = Trie.build(sequences, [1] * len(sequences))
    packs = plan(trie, 128)
    assert len(trie) == 3000
    assert sum(len(pack.positions) for pack in packs) == 3000


def test_a_thousand_branches_one_below_the_other_are_no_recursion() -> None:
    """Demand: a comb of 1000 teeth, each of its own, is planned and correct."""
    spine = list(range(1000))
    trie = Trie.build([[*spine[:count], 5000, 5001] for count in range(1, 1001)], [1] * 1000)
    assert len(trie) == 3000
    check_plan(trie, plan(trie, 512), 512)


def test_one_sequence_longer_than_the_budget_goes_alone() -> None:
    """Demand: the budget bounds passes, not texts."""
    trie = Trie.build([[1] * 50, [2, 3], [2, 4]], [1, 1, 1])
    packs = plan(trie, 8)
    assert check_plan(trie, packs, 8) == len(trie)
    assert max(len(pack.positions) for pack in packs) == 50


def test_a_shared_beginning_is_pushed_once_however_many_passes_its_ends_need() -> None:
    """Demand: few-shot prompts cost one copy (share at least 0.95)."""
    generator = random.Random(0)
    shots = [generator.randrange(40_000) for _ in range(400)]
    sequences = [shots + [generator.randrange(40_000) for _ in range(60)] for _ in range(200)]
    trie = Trie.build(sequences, [1] * len(sequences))
    assert len(trie) / check_plan(trie, plan(trie, 1024), 1024) >= 0.95


def test_equal_sequences_share_one_path_and_ids_up_to_32_bits_stay_apart() -> None:
    """Demand: duplicates cost nothing, and ids are never confused."""
    trie = Trie.build([[256, 1], [1, 256], [256, 1], [2**31 - 1, 1]], [2] * 4)
    assert len(trie) == 6
    assert np.array_equal(trie.paths[0], trie.paths[2])


def test_no_sequences_are_no_passes() -> None:
    """Demand: an empty request list is not an error."""
    assert plan(Trie.build([], []), 64) == []
