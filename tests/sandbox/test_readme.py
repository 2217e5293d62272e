"""The README's section on the sandbox: its table is the real one, and its example runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import free_port
from webhook.sandbox.config import SandboxConfig
from webhook.sandbox.magic import LABELS, OPTIONS, WORDS
from webhook.sandbox.outcomes import RISKS
from webhook.sandbox.views import PAGE

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def section() -> str:
    found = re.search(r"^## The sandbox in your own tests$(.*?)^## ", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_table_has_every_input_as_it_is(section: str) -> None:
    rows = re.findall(r"^\| `([a-z_]+)=(.+?)` \| (.+) \|$", section, re.MULTILINE)
    known = [(option.name, option.syntax, option.meaning) for option in OPTIONS]
    assert [(name, syntax.replace("\\|", "|"), meaning) for name, syntax, meaning in rows] == known


def test_every_word_is_named(section: str) -> None:
    words = {word for word in WORDS if not word.isdigit()} - set(LABELS) - set(RISKS)
    assert [word for word in words if f"`{word}`" not in section] == []


def test_every_endpoint_is_named_in_the_readme_and_on_the_page(section: str) -> None:
    rows = re.findall(r"^\| `GET.*?(/sandbox/[a-z]+)", section, re.MULTILINE)
    assert set(rows) == set(re.findall(r"\{url\}(/sandbox/[a-z]+)", PAGE))


def test_every_option_named_is_one(section: str) -> None:
    named = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]+)", section)} - {"help", "magic"}
    assert named
    assert named <= set(SandboxConfig.__struct_fields__)


def test_the_example_runs(section: str, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    example = found[1].replace("127.0.0.1:8000", f"127.0.0.1:{free_port()}")
    (tmp_path / "test_example.py").write_text(example)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in result.stdout, result.stdout + result.stderr
