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


ANY = ("py3", "none", "any")


@pytest.mark.filterwarnings("ignore:.*is still \\*experimental")  # setuptools, of its table in pyproject.toml
@pytest.mark.parametrize(
    ("platform", "libc", "free_threaded", "built"),
    [
        ("linux", "glibc", 0, True),
        ("linux", "glibc", 1, False),
        ("linux", "", 0, False),
        ("darwin", "", 0, False),
        ("win32", "", 0, False),
    ],
)
def test_other_systems_get_the_wheel_without_the_library(
    monkeypatch: pytest.MonkeyPatch, platform: str, libc: str, free_threaded: int, built: bool
) -> None:
    """It needs no Go, and its tag says that it suits every system."""
    from setuptools import Distribution, Extension

    monkeypatch.setattr(build.sys, "platform", platform)
    monkeypatch.setattr(build.platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(build.sysconfig, "get_config_var", {"Py_GIL_DISABLED": free_threaded}.get)
    distribution = Distribution({"name": "tailbone", "ext_modules": [Extension("tailbone.tsnet._ffi", [])]})
    command = build.BdistWheel(distribution)
    command.ensure_finalized()
    assert bool(distribution.ext_modules) == built
    assert (command.get_tag() == ANY) != built
    monkeypatch.chdir(ROOT)
    for needs in (build.get_requires_for_build_wheel(), build.get_requires_for_build_editable()):
        assert (build.GO in needs) == built


@pytest.mark.filterwarnings("ignore:.*is still \\*experimental")
@pytest.mark.parametrize(
    ("wheel", "requirements"),
    [
        ("any", set()),
        ("manylinux_2_28_x86_64", {build.GO, build.ZIG}),
        ("manylinux_2_28_aarch64", {build.GO, build.ZIG}),
    ],
)
def test_the_build_of_a_released_wheel_needs(
    monkeypatch: pytest.MonkeyPatch, wheel: str, requirements: set[str]
) -> None:
    """Zig, as the C compiler, where there is something to compile."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(build, "_wanted", "")
    assert requirements <= set(build.get_requires_for_build_wheel({"wheel": wheel}))
    if not requirements:
        assert not {build.GO, build.ZIG} & set(build.get_requires_for_build_wheel({"wheel": wheel}))


def test_an_unknown_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names those that can be built."""
    monkeypatch.setattr(build, "_wanted", "")
    with pytest.raises(
        SystemExit, match="unknown wheel 'musllinux': allowed are any, manylinux_2_28_x86_64, "
    ):
        build.get_requires_for_build_wheel({"wheel": "musllinux"})


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
