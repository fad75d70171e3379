"""Rules of the code base that the import linter cannot check."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tailbone"
UNIT_TESTS = ROOT / "tests" / "unit"
TESTED_ELSEWHERE = {
    "algorithms.py": "nothing: it has no behaviour",
    "__main__.py": "tests/integration, as every command",
    "agent/joined.py": "tests/integration/test_client.py, on a real tailnet",
    "cli/admin.py": "tests/unit/cli/test_keys.py, as the commands that call the admin API",
    "cli/dev.py": "tests/integration/test_dev.py",
    "cli/doctor.py": "tests/consumers/test_doctor.py",
    "client/local_agent.py": "tests/integration/test_exec.py",
    "client/token.py": "tests/unit/client/test_source.py, as what it keeps",
    "jwks/s3.py": "tests/s3, on real S3 servers",
    "keys/settings.py": "nothing: it has no behaviour",
    "testing/plugin.py": "tests/integration/test_testing.py, in a fresh project",
    "testing/tailnet.py": "tests/integration/test_testing.py",
    "policy_file/example.py": "tests/unit/cli/test_policy.py and tests/integration/test_grants.py",
}
"""Modules without a test file of their own, and where their tests are."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_proto" not in path.parts)


def imported(path: Path) -> set[str]:
    """Return the names that a module imports, at any level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_one_module_touches_the_native_library() -> None:
    """Only tailbone/tsnet/library.py imports the compiled extension, or cffi."""
    touching = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(re.search(r"(^cffi\b)|(\b_ffi\b)", name) for name in imported(path))
    }
    assert touching == {"tsnet/library.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_states_its_purpose(path: Path) -> None:
    """Each module that contains code begins with a docstring whose first line states its job."""
    text = path.read_text()
    if not text.strip():
        return
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring
    assert len(docstring.splitlines()[0]) > 20


def module_of(test: Path) -> Path | None:
    """Return the module that a unit test file is for: the one with the longest name that begins its own."""
    folder = PACKAGE / test.parent.relative_to(UNIT_TESTS)
    name = test.stem.removeprefix("test_")
    modules = (path for path in folder.glob("*.py") if f"{name}_".startswith(f"{path.stem}_"))
    return max(modules, key=lambda path: len(path.stem), default=None)


def test_each_module_has_its_test_file() -> None:
    """tests/unit mirrors tailbone: test_NAME.py for NAME.py, or several that begin with that name."""
    tested = {module_of(test) for test in UNIT_TESTS.rglob("test_*.py")}
    missing = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if path not in tested and path.name != "__init__.py"
    }
    assert missing == TESTED_ELSEWHERE.keys()


def test_the_tests_elsewhere_exist() -> None:
    """Each reason in TESTED_ELSEWHERE names tests that are there."""
    named = {word for reason in TESTED_ELSEWHERE.values() for word in re.findall(r"tests/[\w/*.]+\w", reason)}
    assert [word for word in sorted(named) if not any(ROOT.glob(word))] == []


def test_no_file_names_a_folder_of_a_developer_machine() -> None:
    """Committed files contain no path below /work, /root or /home, except a container's /root/.cache."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.exists() and re.search(rb"(?<![\w.])/(work|root(?!/\.cache)|home/\w+)/", path.read_bytes()):
            found.append(name)
    assert found == []
