"""The build's messages, tags and cache keys; the repository contains no download address."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
build = pytest.importorskip("build", reason="setuptools is not installed beside the tests")


@pytest.mark.filterwarnings("ignore:.*is still \\*experimental")  # setuptools, of its table in pyproject.toml
@pytest.mark.parametrize(
    ("platform", "libc", "built"),
    [("linux", "glibc", True), ("linux", "", False), ("darwin", "", False), ("win32", "", False)],
)
def test_other_systems_get_the_client_and_the_verifier(
    monkeypatch: pytest.MonkeyPatch, platform: str, libc: str, built: bool
) -> None:
    """The build leaves out the library, needs no Go, and does not fail."""
    from setuptools import Distribution, Extension

    monkeypatch.setattr(build.sys, "platform", platform)
    monkeypatch.setattr(build.platform, "libc_ver", lambda: (libc, ""))
    extension = Extension("tailbone.tsnet._ffi", [])
    command = build.BuildExt(Distribution({"ext_modules": [extension]}))
    command.finalize_options()
    assert command.extensions == ([extension] if built else [])
    monkeypatch.chdir(ROOT)
    for needs in (build.get_requires_for_build_wheel(), build.get_requires_for_build_editable()):
        assert (build.GO in needs) == built


def test_the_library_uploads_no_logs() -> None:
    """The tags include ts_omit_logtail, without which a node tries to upload logs."""
    assert "ts_omit_logtail" in build.TAGS.split(",")


def test_uv_rebuilds_when_a_source_of_the_library_changes() -> None:
    """uv's cache keys name every source of the library."""
    import tomllib

    keys = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["cache-keys"]
    named = {key["file"] for key in keys}
    assert {
        "build.py",
        "tailbone/tsnet/_cdef.h",
        "tsnet_go/**/*.go",
        "tsnet_go/**/*.c",
        "tsnet_go/go.mod",
        "tsnet_go/go.sum",
    } <= named


def test_no_committed_file_has_a_download_address() -> None:
    """uv.lock and similar files record a registry's address, so they are not committed."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "pyproject.toml" in tracked
    assert [
        name
        for name in tracked
        if re.search(r"(^|/)(uv|poetry|Pipfile|pdm|package-lock)[.-]?(lock|json)", name)
    ] == []
