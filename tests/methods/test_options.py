"""Options of a method: read from text or JSON, converted by the dataclass's own types, refused in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

import pytest

from harness import HarnessError, arguments
from harness.methods import Baseline, options


@dataclass(frozen=True)
class Everything:
    """A method with an option of every type.

    Options:
        count: how many.
        rate: how fast,
            in two lines.
    """

    name: ClassVar[str] = "everything"
    count: int = 1
    rate: float = 0.5
    is_on: bool = False
    text: str = "plain"
    file: Path | None = None
    kind: Literal["soft", "hard", 3] = "soft"
    layers: tuple[int, ...] = ()
    names: tuple[str, ...] = ("all",)
    maybe: Optional[int] = None  # noqa: UP045
    size: int | Literal["auto"] = 8
    either: int | str = 0
    computed: tuple[int, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        """Refuse a negative count."""
        if self.count < 0:
            raise ValueError(f"count is {self.count}; it has to be 0 or more")

    def apply(self, lm: Any, *, seed: int, workdir: Path) -> Any:
        """Return the LM."""
        return lm


@dataclass(frozen=True)
class Demanding:
    """A method that cannot do without a file."""

    name: ClassVar[str] = "demanding"
    file: Path

    def apply(self, lm: Any, *, seed: int, workdir: Path) -> Any:
        """Return the LM."""
        return lm


def build(text: str) -> Any:
    return options.build(Everything, arguments.parse_args(text, flag="--method_args"))


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("count=7", "count", 7),
        ("count= 7 ", "count", 7),
        ('{"count": 7}', "count", 7),
        (' {"count": 7.0}', "count", 7),
        ("rate=2", "rate", 2.0),
        ("rate=-1e-3", "rate", -0.001),
        ('{"rate": 2}', "rate", 2.0),
        ("is_on=true", "is_on", True),
        ("is_on=True", "is_on", True),
        ("is_on=no", "is_on", False),
        ('{"is_on": false}', "is_on", False),
        ("text=a=b", "text", "a=b"),
        ("text=ünï 🎉", "text", "ünï 🎉"),
        ('text="a,b"', "text", "a,b"),
        ("text='a,b'", "text", "a,b"),
        ('{"text": "a,b"}', "text", "a,b"),
        ("file=some/file.txt", "file", Path("some/file.txt")),
        ("file=none", "file", None),
        ("file=", "file", None),
        ('{"file": null}', "file", None),
        ("kind=hard", "kind", "hard"),
        ("kind=3", "kind", 3),
        ('{"kind": 3}', "kind", 3),
        ("layers=[1,2,3]", "layers", (1, 2, 3)),
        ("layers=[1, 2]", "layers", (1, 2)),
        ("layers=[]", "layers", ()),
        ("layers=1+2+3", "layers", (1, 2, 3)),
        ("layers=4", "layers", (4,)),
        ('{"layers": [1, 2]}', "layers", (1, 2)),
        ("names=[q_proj,k_proj]", "names", ("q_proj", "k_proj")),
        ("names=['q_proj', 'k_proj']", "names", ("q_proj", "k_proj")),
        ('names=["q_proj"]', "names", ("q_proj",)),
        ("names=q_proj+k_proj", "names", ("q_proj", "k_proj")),
        ("maybe=5", "maybe", 5),
        ("maybe=None", "maybe", None),
        ("size=16", "size", 16),
        ("size=auto", "size", "auto"),
        ("either=some", "either", "some"),
    ],
)
def test_text_and_json_become_the_type_of_the_option(text: str, option: str, value: object) -> None:
    got = getattr(build(text), option)
    assert got == value
    assert type(got) is type(value)


def test_several_options_come_at_once_and_the_rest_keep_their_defaults() -> None:
    method = build("count=2,layers=[3,4],names=[a,b],rate=0.25,text=it's,is_on=true")
    assert (method.count, method.layers, method.names, method.rate) == (2, (3, 4), ("a", "b"), 0.25)
    assert (method.text, method.is_on, method.kind) == ("it's", True, "soft")


def test_a_shown_default_can_be_given_back_as_it_is_shown() -> None:
    shown = {option.name: option.default for option in options.options(Everything) if option.default != "(computed)"}
    text = ",".join(f"{name}={default}" for name, default in shown.items())
    assert build(text) == Everything()


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build("file=~/words.txt").file == tmp_path / "words.txt"


@pytest.mark.parametrize(
    ("text", "option", "shown"),
    [
        ("count=many", "count", "'many', where a whole number is due"),
        ("count=1.5", "count", "'1.5', where a whole number is due"),
        ("count=", "count", "'', where a whole number is due"),
        ("count=nan", "count", "'nan', where a whole number is due"),
        ('{"count": 1.5}', "count", "'1.5', where a whole number is due"),
        ('{"count": true}', "count", "'True', where a whole number is due"),
        ('{"count": null}', "count", "'None', where a whole number is due"),
        ('{"count": [1]}', "count", "'[1]', where a whole number is due"),
        ('{"count": NaN}', "count", "'nan', where a whole number is due"),
        ('{"count": 1e999}', "count", "'inf', where a whole number is due"),
        ("rate=fast", "rate", "'fast', where a finite number is due"),
        ("rate=nan", "rate", "'nan', where a finite number is due"),
        ("rate=inf", "rate", "'inf', where a finite number is due"),
        ("rate=-Infinity", "rate", "'-Infinity', where a finite number is due"),
        ("rate=1e999", "rate", "'1e999', where a finite number is due"),
        ('{"rate": NaN}', "rate", "'nan', where a finite number is due"),
        ('{"rate": Infinity}', "rate", "'inf', where a finite number is due"),
        ('{"rate": false}', "rate", "'False', where a finite number is due"),
        ("is_on=maybe", "is_on", "'maybe', where true or false is due"),
        ("is_on=2", "is_on", "'2', where true or false is due"),
        ('{"text": 5}', "text", "'5', where text is due"),
        ("kind=medium", "kind", "'medium', where one of soft, hard, 3 is due"),
        ("kind=", "kind", "'', where one of soft, hard, 3 is due"),
        ("layers=[1,x]", "layers", "'x', where a whole number is due"),
        ('{"layers": [1, null]}', "layers", "'None', where a whole number is due"),
        ("maybe=some", "maybe", "'some', where a whole number is due"),
        ('{"file": "a\\u0000b"}', "file", "'a␀b', where a path is due"),
        ('{"file": 3}', "file", "'3', where a path is due"),
        ("count=\x1b[31m", "count", "'␛[31m', where a whole number is due"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_option(text: str, option: str, shown: str) -> None:
    with pytest.raises(HarnessError) as caught:
        build(text)
    assert str(caught.value) == f"option '{option}' of method 'everything' is {shown}"


@pytest.mark.parametrize("text", ['{"layers": {"a": 1}}', '{"layers": 1.5}', '{"names": [1]}', '{"layers": true}'])
def test_a_list_takes_nothing_but_a_list(text: str) -> None:
    with pytest.raises(HarnessError, match=r"option '(layers|names)' of method 'everything' is "):
        build(text)


def test_a_value_the_method_refuses_is_told_in_its_words() -> None:
    with pytest.raises(
        HarnessError, match=r"^method 'everything' refuses its options: count is -1; it has to be 0 or more$"
    ):
        build("count=-1")


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(HarnessError, match=r"^method 'everything' has no option 'conut'; it has count, rate, "):
        build("conut=3")
    with pytest.raises(HarnessError, match="has no option 'a'; it has none at all"):
        options.build(Baseline, {"a": "1"})


def test_a_missing_option_is_named() -> None:
    with pytest.raises(
        HarnessError, match=r"^method 'demanding' needs option 'file'; give it with --method_args file=\.\.\.$"
    ):
        options.build(Demanding, {})


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("count", "'count' is neither"),
        ("=3", "'=3' is neither"),
        ("count=1,,rate", "'rate' is neither"),
        ("count=1,count=2", "gives 'count' twice"),
        ('{"count": 1', "does not parse"),
        ('{"count": 1} x', "does not parse"),
        ('{"count": 1, "count": 2}', "gives 'count' twice"),
        ("layers=[1,2,count=3", "layers"),
        ("text='a,count=3", "text"),
    ],
)
def test_malformed_options_are_told_with_the_flag(text: str, cause: str) -> None:
    with pytest.raises(HarnessError) as caught:
        arguments.parse_args(text, flag="--method_args")
    assert str(caught.value).startswith("--method_args ")
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", " ", ",", "{}"])
def test_no_options_are_no_options(text: str | None) -> None:
    assert arguments.parse_args(text, flag="--method_args") == {}


def test_options_are_described_by_type_default_and_docstring() -> None:
    described = {option.name: option for option in options.options(Everything)}
    assert list(described)[:3] == ["count", "rate", "is_on"]
    assert described["count"] == options.Option("count", "whole number", "1", "how many.")
    assert described["rate"].meaning == "how fast, in two lines."
    assert described["kind"].type == "soft|hard|3"
    assert described["layers"].type == "list of whole number"
    assert described["maybe"] == options.Option("maybe", "whole number or none", "none", "")
    assert described["computed"].default == "(computed)"
    assert options.options(Demanding)[0].default == "(required)"


def test_resolved_options_are_json_values_that_build_the_same_method() -> None:
    method = build("file=a/b,layers=1+2,kind=3,maybe=4")
    resolved = options.resolved_options(method)
    assert resolved["file"] == "a/b"
    assert resolved["layers"] == [1, 2]
    assert options.build(Everything, resolved) == method
    assert all(not isinstance(value, float) or math.isfinite(value) for value in resolved.values())


def test_the_only_method_needs_no_name_and_of_several_one_has_to_be_picked() -> None:
    both: dict[str, Any] = {"everything": Everything, "demanding": Demanding}
    assert options.pick({"demanding": Demanding}, None, plugin="p") is Demanding
    assert options.pick({}, None, plugin="p") is Baseline
    assert options.pick(both, "baseline", plugin="p") is Baseline
    assert options.pick(both, "demanding", plugin="p") is Demanding
    with pytest.raises(
        HarnessError, match="plugin 'p' has several methods; pick one with --method: everything, demanding"
    ):
        options.pick(both, None, plugin="p")
    with pytest.raises(HarnessError, match=r"plugin 'p' has no method 'everythin'; did you mean 'everything'\?"):
        options.pick(both, "everythin", plugin="p")
    with pytest.raises(HarnessError, match="plugin 'p' has no method 'x'; there is baseline"):
        options.pick({}, "x", plugin="p")


def test_options_that_methods_share_stand_behind_their_own_with_their_meaning() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Shared:
        """Options:
        speed: how fast.
        size: how large,
            for all.
        """

        speed: int = 1
        size: int = 2

    @dataclass(frozen=True)
    class Own(Shared):
        """One method.

        Options:
            name_file: what to read.
            size: how large here.
        """

        name: ClassVar[str] = "own"

        name_file: str

    found = [(option.name, option.meaning) for option in options.options(Own)]  # type: ignore[type-abstract]
    assert found == [("name_file", "what to read."), ("speed", "how fast."), ("size", "how large here.")]
    built = options.build(Own, {"name_file": "a", "speed": "3"})  # type: ignore[type-var]
    assert (built.name_file, built.speed, built.size) == ("a", 3, 2)
