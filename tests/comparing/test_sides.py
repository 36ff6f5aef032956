"""What names a side of a comparison: paths, selectors, both; and how a name that fits nothing or too much is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from compared_runs import write_run

from harness.comparing.sides import Pool, Side, find_sides
from harness.errors import HarnessError

VALUES = [1.0, 0.0, 1.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of the untouched model and of one method with two schemes, three seeds of one of them."""
    write_run(tmp_path, {"t": {"acc": VALUES}})
    for seed in (1, 2, 3):
        write_run(tmp_path, {"t": {"acc": VALUES}}, method="split", options={"scheme": "none", "rate": 0.5}, seed=seed)
    write_run(tmp_path, {"t": {"acc": VALUES}}, method="split", options={"scheme": "dropout", "rate": 0.5})
    return tmp_path


def sides(folder: Path, *words: str) -> list[Side]:
    return find_sides(words, Pool(folder))


def described(side: Side) -> tuple[str, Any, int]:
    return side.first.method.name, side.first.method.options.get("scheme"), len(side.records)


def test_an_option_names_a_side_with_all_its_seeds(folder: Path) -> None:
    found = sides(folder, "scheme=none", "scheme=dropout")
    assert [described(side) for side in found] == [("split", "none", 3), ("split", "dropout", 1)]
    assert [side.label for side in found] == ["scheme=none", "scheme=dropout"]


def test_at_puts_the_second_name_first_as_what_the_other_is_compared_with(folder: Path) -> None:
    found = sides(folder, "scheme=none@baseline")
    assert [described(side) for side in found] == [("baseline", None, 1), ("split", "none", 3)]


def test_a_side_named_twice_counts_once(folder: Path) -> None:
    found = sides(folder, "scheme=none@baseline", "scheme=dropout@baseline")
    assert [side.label for side in found] == ["baseline", "scheme=none", "scheme=dropout"]


@pytest.mark.parametrize("word", ["split,scheme=dropout", "scheme=dropout,rate=0.50", "plugin=split,scheme=dropout"])
def test_parts_of_a_selector_all_have_to_fit(folder: Path, word: str) -> None:
    assert described(sides(folder, "baseline", word)[1]) == ("split", "dropout", 1)


def test_a_seed_can_be_chosen(folder: Path) -> None:
    assert described(sides(folder, "baseline", "scheme=none,seed=2")[1]) == ("split", "none", 1)


def test_a_path_is_a_side_and_a_selector_can_follow_it(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_run(other, {"t": {"acc": VALUES}}, method="third")
    found = sides(folder, str(other), f"{folder}:scheme=none")
    assert [described(side) for side in found] == [("third", None, 1), ("split", "none", 3)]
    file = next(other.rglob("records_*.jsonl"))
    assert described(sides(folder, "baseline", str(file))[1]) == ("third", None, 1)


def test_two_folders_of_the_same_method_are_two_sides(tmp_path: Path) -> None:
    for name in ("monday", "friday"):
        write_run(tmp_path / name, {"t": {"acc": VALUES}})
    found = sides(tmp_path, str(tmp_path / "monday"), str(tmp_path / "friday"))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("split", "baseline"),
            "'split' names 2 sides .* differ in scheme: .*; say which, as in 'split,scheme=",
        ),
        (("scheme=typo", "baseline"), "no record in .* has scheme 'typo'; there is dropout, none"),
        (("splt", "baseline"), "no record in .* has method or plugin 'splt'; did you mean 'split'"),
        (("schem=none", "baseline"), "no record has an option 'schem'; did you mean 'scheme'"),
        (("scheme=none,baseline", "baseline"), "each part fits some: there is .baseline. and .scheme=none."),
        (("no/such/folder", "baseline"), "there is no such file or folder"),
        (("baseline",), "takes two sides, and 'baseline' is one"),
        (("@baseline",), "has nothing on one side of its @"),
        (("plugin=split,scheme=none", "scheme=none"), "are the same records"),
    ],
)
def test_a_name_that_does_not_name_one_side_is_explained(folder: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(HarnessError, match=said) as caught:
        sides(folder, *words)
    assert "\n" not in str(caught.value)


def test_a_folder_that_holds_several_methods_has_to_be_told_which(folder: Path) -> None:
    with pytest.raises(HarnessError, match=f"as in '{folder}:baseline'"):
        sides(folder, str(folder), "baseline")


def test_an_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="there are no records in"):
        sides(tmp_path, "baseline", "split")


def test_edited_code_is_another_side(folder: Path) -> None:
    options = {"scheme": "none", "rate": 0.5}
    plugin = {"code_digest": "ed17ed0000"}
    write_run(folder, {"t": {"acc": VALUES}}, method="split", options=options, plugin=plugin)
    with pytest.raises(HarnessError, match=r"differ in code: .*ed17ed0000"):
        sides(folder, "baseline", "scheme=none")
    assert described(sides(folder, "baseline", "scheme=none,code=ed17")[1]) == ("split", "none", 1)


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """Results of one method and of the untouched model, each on a model, quantised, with an adapter, and a larger one."""
    kinds: list[dict[str, Any]] = [
        {},
        {"model": {"quantization": "nf4"}},
        {"model": {"digest": "ada9", "name": "tiny"}, "settings": {"model_args": {"peft": "mine"}}},
        {"model": {"name": "large", "digest": "1a59e"}},
    ]
    for more in kinds:
        write_run(tmp_path, {"t": {"acc": VALUES}}, **more)
        write_run(tmp_path, {"t": {"acc": VALUES}}, method="split", options={"rate": 0.5}, **more)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "model"),
    [
        ("split,quantization=nf4", ("tiny", "nf4", "0123456789abcdef")),
        ("split,adapter=mine", ("tiny", "none", "ada9")),
        ("split,model=large", ("large", "none", "1a59e")),
        ("split,model=tiny,quantization=none,adapter=none", ("tiny", "none", "0123456789abcdef")),
    ],
)
def test_at_baseline_is_the_baseline_of_the_model_of_the_other_side(
    crowd: Path, word: str, model: tuple[str, ...]
) -> None:
    found = sides(crowd, f"{word}@baseline")
    assert [side.first.method.name for side in found] == ["baseline", "split"]
    for side in found:
        assert (side.first.model.name, side.first.model.quantization, side.first.model.digest) == model


def test_a_baseline_that_was_not_run_on_that_model_is_told_with_those_there_are(crowd: Path) -> None:
    write_run(crowd, {"t": {"acc": VALUES}}, method="other", model={"quantization": "int8"})
    with pytest.raises(
        HarnessError, match=r"not run on the model of 'other' \(tiny, int8\) .* but on tiny, .*with_baseline"
    ):
        sides(crowd, "other@baseline")


def test_two_baselines_are_not_one_side(crowd: Path) -> None:
    with pytest.raises(HarnessError, match="'baseline' is on tiny, nf4 for one side and on large, float32 for another"):
        sides(crowd, "split,quantization=nf4@baseline", "split,model=large@baseline")


@pytest.mark.parametrize("words", [("split", "baseline"), ("baseline,quantization=none", "split,quantization=nf4")])
def test_what_an_error_advises_names_one_side(crowd: Path, words: tuple[str, str]) -> None:
    """Every selector between quotes behind `as in` or `take that` is tried: it selects one side, or two with @."""
    with pytest.raises(HarnessError) as caught:
        sides(crowd, *words)
    advised = re.findall(r"(?:as in|of the other side:) '([^']*)'", str(caught.value))
    assert advised
    for word in advised:
        other = f"{'baseline' if word.startswith('split') else 'split'},model=large"
        assert len(sides(crowd, *([word] if "@" in word else [word, other]))) == 2


def test_what_only_a_digest_or_a_file_tells_apart_is_advised_by_them(tmp_path: Path) -> None:
    for content in ("first", "second"):
        write_run(tmp_path, {"t": {"acc": VALUES}}, model={"digest": f"{content} digest"})
    with pytest.raises(HarnessError, match=r"as in 'baseline,digest=(first dige|second diges)"):
        sides(tmp_path, "baseline", "m")


def test_options_with_commas_are_told_apart_by_the_folder_of_a_run(tmp_path: Path) -> None:
    for value in ("a,b", "c,d"):
        write_run(tmp_path, {"t": {"acc": VALUES}}, method="m", options={"list": value})
    with pytest.raises(HarnessError, match="say which, as in ") as caught:
        sides(tmp_path, "m", "baseline")
    [folder] = re.findall("as in '([^']*)'", str(caught.value))
    write_run(tmp_path, {"t": {"acc": VALUES}})
    assert len(sides(tmp_path, "baseline", folder)) == 2


def test_a_run_is_named_by_the_beginning_of_its_name(crowd: Path) -> None:
    names = sorted(path.name for path in crowd.iterdir() if path.name.startswith("split-"))
    found = sides(crowd, names[0][: len("split-") + 4], f"run={names[1][:-2]}")
    assert [side.first.run for side in found] == names[:2]


def test_a_folder_without_records_is_no_side(crowd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the way called as a method is passed by, one of another name is told."""
    here = crowd / "here"
    for name in ("split", "notes"):
        (here / name).mkdir(parents=True)
        (here / name / "list.txt").write_text("no record")
    monkeypatch.chdir(here)
    assert len(sides(crowd, "split,model=large@baseline")) == 2
    with pytest.raises(
        HarnessError, match=r"'notes' is a folder without records, and no record in .* method or plugin 'notes'"
    ):
        sides(crowd, "notes", "baseline")
    with pytest.raises(HarnessError, match=r"'\./notes' is no folder of results"):
        sides(crowd, "./notes", "baseline")


def test_one_side_alone_is_answered_with_another_that_goes_with_it(crowd: Path) -> None:
    with pytest.raises(HarnessError, match="as in `harness compare split,model=large@baseline`"):
        sides(crowd, "split,model=large")
