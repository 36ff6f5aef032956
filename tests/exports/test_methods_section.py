"""The methods section: what the records say, nothing else, and what to cite."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from board_records import baseline, measured, record

from harness.board.board import build, build_reading
from harness.cli import main
from harness.exports import methods_section, references
from harness.exports.methods_section import Section, describe
from harness.records import ledger
from harness.records.record import Record

ROOT = Path(__file__).parents[2]
PLUGINS = ("stochastok", "tool_tokens", "critical_tokens", "contextual_embeddings")


def section(*records: Record) -> Section:
    return describe(build(list(records)))


def told(*records: Record) -> str:
    return " ".join(section(*records).sentences)


def test_it_says_model_method_options_seeds_task_and_versions() -> None:
    """Each from the fields of the records, the given options from the command."""
    command = "harness eval --plugin stochastok --method_args steps=8,examples_file=train-{}.jsonl --tasks t"
    plugin = {"name": "stochastok", "distribution": "token-harness", "version": "9.8"}
    several = [
        record(
            0.5, method="stochastok", plugin=plugin, command=command.format(seed), seed=seed,
            options={"steps": 8, "examples_file": f"train-{seed}.jsonl", "rank": 16},
        )
        for seed in (3, 5)
    ]  # fmt: skip
    one = several[0]
    said = told(baseline(0.4), *several)
    assert f"digest {one.model.digest[:12]}" in said
    assert "The untouched model was compared with stochastok [@sims2025stochastok] (token-harness 9.8" in said
    assert "steps=8, examples_file=train-{seed}.jsonl; seeds 3 and 5)" in said and "rank" not in said
    assert f"{one.task.name} (version {one.task.version}" in said
    assert f"Language Model Evaluation Harness {one.environment.lm_eval} [@eval-harness]" in said
    assert "Scores are means over seeds." in said


def test_settings_that_decide_prompts_are_told() -> None:
    """Shots with their seed, chat template, system message, quantisation with its paper."""
    asked = {
        "num_fewshot": 5,
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "system_instruction": "Be kind.",
    }
    said = told(baseline(0.4, settings=asked, model={"quantization": "nf4", "dtype": "float16"}))
    for words in ("5-shot", "examples drawn with seed", "chat template, examples as turns", "“Be kind.”",
                  "quantised to nf4 (float16) [@dettmers2023qlora]", "The models were evaluated as they are."):  # fmt: skip
        assert words in said, words


def test_differences_are_told_only_where_they_were_tested(tmp_path: Path) -> None:
    """And as what they are: paired where both samples are at hand."""
    assert "tested" not in told(baseline(0.4))
    sides = ((baseline, {n: float(n % 2) for n in range(40)}), (record, dict.fromkeys(range(40), 1.0)))
    records = [
        make(**measured(tmp_path, f"samples_{number}.jsonl", scores)) for number, (make, scores) in enumerate(sides)
    ]
    ledger.write(tmp_path / "records.jsonl", records)
    said = " ".join(describe(build_reading(ledger.read(tmp_path / "records.jsonl"))).sentences)
    assert "were tested paired over documents" in said, said


def test_results_of_another_tool_say_what_their_files_leave_open() -> None:
    """They were not computed here, and no method of ours was."""
    made = section(record(0.5, plugin={}, method="x", model={"name": "m", "digest": "unknown"}, foreign={
        "tool": "mteb", "version": "2.0", "unknown": ["seeds", "model.digest"],
    }))  # fmt: skip
    said = " ".join(made.sentences)
    assert "m (digest not stated, float32)" in said
    assert (
        "Scores of mteb 2.0 were read from the files that it wrote, which do not state seeds and model.digest." in said
    )
    assert "compared with x" not in said and "Scores were computed" not in said
    assert list(made.references.entries) == ["token-harness"] and made.missing == ()


def test_a_plugin_that_is_not_installed_leaves_a_note() -> None:
    """Its paper cannot be known, and nothing is made up."""
    made = section(record(0.5, plugin={"name": "gone", "distribution": "d", "version": "1"}))
    assert made.missing == ("the paper behind plugin gone",)
    assert "To be added: the paper behind plugin gone." in methods_section.to_markdown(made)
    assert "% to be added: the paper behind plugin gone" in methods_section.to_latex(made)


def test_every_citation_has_its_entry_in_every_form() -> None:
    """Pandoc's in Markdown, \\cite in LaTeX, and the same entries in the .bib file."""
    made = section(baseline(0.4), record(0.5, plugin={"name": "tool_tokens", "distribution": "d", "version": "1"}))
    entries = set(re.findall(r"^@\w+\{([^,]+),", methods_section.to_bibtex(made), re.MULTILINE))
    cited = set(re.findall(r"@([\w-]+)", " ".join(made.sentences)))
    assert cited == entries == set(made.references.entries) and len(cited) == 5
    in_latex = re.findall(r"\\cite\{([^}]+)\}", methods_section.to_latex(made))
    assert {key for keys in in_latex for key in keys.split(",")} == entries
    assert json.loads(methods_section.to_json(made))["references"] == made.references.entries


def test_names_from_outside_are_text_and_cite_nothing() -> None:
    """A model's name may hold anything."""
    made = section(baseline(0.4, model={"name": "m_1 \\input{x} [@nothing] 50%\n"}))
    latex = methods_section.to_latex(made)
    assert "\\input" not in latex and "\\cite{nothing}" not in latex and "50\\%" in latex
    assert "[@nothing]" in methods_section.to_markdown(made)


@pytest.mark.parametrize("name", PLUGINS)
def test_each_plugin_names_its_papers_as_its_readme_does(name: str) -> None:
    """Surnames, title and number of the paper stand in both."""
    folder = ROOT / "plugins" / f"harness_{name}"
    readme = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    entries = references._split((folder / "CITATION.bib").read_text(encoding="utf-8"))
    assert entries
    for text in entries.values():
        fields = dict(re.findall(r"(\w+) = \{(.*)\},\n", text))
        assert fields["title"].replace("{", "").replace("}", "") in readme
        assert fields["eprint"] in readme and f", {fields['year']}," in readme
        for author in fields["author"].split(" and "):
            assert author.split(",")[0] in readme


def test_a_file_of_papers_that_is_none_gives_none() -> None:
    """What a foreign plugin brings is read as text: braces that do not close, keys that LaTeX would run."""
    assert references._split("@misc{open, title = {x}") == {}
    assert references._split("@misc{\\input{x}, title = {x}}") == {}
    assert references._split("words @misc{a-1, t={x}} more @misc{b:2,t={{y}}}") == {
        "a-1": "@misc{a-1, t={x}}", "b:2": "@misc{b:2,t={{y}}}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--shape", "methods", "--format", "csv"], "there is no csv of --shape methods"),
        (["--shape", "runs", "-o", "x.bib"], "there is no bibtex of --shape runs"),
    ],
)
def test_a_form_that_does_not_go_with_it_is_one_sentence(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is written."""
    monkeypatch.chdir(tmp_path)
    ledger.write(tmp_path / "records.jsonl", [baseline(0.4)])
    assert main(["export", "records.jsonl", *flags]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_the_command_writes_text_and_bibliography(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command, two files."""
    monkeypatch.chdir(tmp_path)
    ledger.write(tmp_path / "records.jsonl", [baseline(0.4)])
    assert main(["export", "records.jsonl", "--shape", "methods", "-o", "m.tex", "-o", "r.bib"]) == 0
    assert capsys.readouterr().out == "wrote m.tex\nwrote r.bib\n"
    assert "\\cite{eval-harness}" in Path("m.tex").read_text(encoding="utf-8")
    assert "@misc{eval-harness," in Path("r.bib").read_text(encoding="utf-8")


def test_the_citation_file_says_what_the_package_says() -> None:
    """Version, licence and summary are those of pyproject.toml; nobody is named that it does not name."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert (cited["title"], str(cited["version"])) == (project["name"], project["version"])
    assert (cited["license"], cited["abstract"]) == (project["license"], project["description"])
    assert cited["keywords"] == project["keywords"]
    assert cited["authors"] == [{"name": "The token-harness contributors"}] and "authors" not in project
