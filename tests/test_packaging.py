"""The wheel, installed into a new virtual environment, brings plugins and tasks and works from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: object, **settings: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_the_wheel_lists_plugins_and_tasks_from_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "results", "*.egg-info", "__pycache__", ".mypy_cache", "node_modules"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path / "dist",
        source,
    ]
    run(sys.executable, *build)
    [wheel] = (tmp_path / "dist").glob("*.whl")

    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # What it depends on is taken from where the tests run: gigabytes need no second copy.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    harness = tmp_path / "venv" / "bin" / "harness"
    where = run(python, "-c", "import harness_tasks; print(harness_tasks.__file__)", cwd=elsewhere, env=environment)
    assert Path(where.strip()).is_relative_to(packages)
    plugins = run(harness, "plugins", cwd=elsewhere, env=environment)
    assert "stochastok" in plugins and "token-harness 0.1.0" in plugins
    tasks = run(harness, "tasks", cwd=elsewhere, env=environment)
    for name in (
        "langgame_contains",
        "langgame_ood",
        "addition_3digit",
        "cute_spell",
        "fertility",
        "plain_text",
        "tokenization_robustness",
    ):
        assert name in tasks
    unpacked = run(python, "-m", "zipfile", "-l", wheel)
    assert "tests/" not in unpacked and "docs/" not in unpacked
