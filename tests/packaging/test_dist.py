"""What ``.ci/wheels`` built: each file has what it should, and nothing else."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("elftools", reason="pyelftools is not installed")
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

import build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.wheels import Wheels

ROOT = Path(__file__).parents[2]
LIBRARY = "tailbone/tsnet/libtsnet.so"
EXTENSION = "tailbone/tsnet/_ffi.abi3.so"


def names(wheel: Path) -> set[str]:
    """Return the names in a wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


def elf(wheel: Path, name: str) -> ELFFile:
    """Return an ELF file of a wheel."""
    return ELFFile(io.BytesIO(zipfile.ZipFile(wheel).read(name)))


def exported(file: ELFFile) -> set[str]:
    """Return the functions that a library exports."""
    return {
        symbol.name
        for symbol in file.get_section_by_name(".dynsym").iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] == "STT_FUNC"
    }


def needed_glibc(file: ELFFile) -> Iterator[tuple[int, ...]]:
    """Yield the versions of glibc that its symbols need."""
    for section in file.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, versions in section.iter_versions():
                for version in versions:
                    if version.name.startswith("GLIBC_"):
                        yield tuple(map(int, version.name.removeprefix("GLIBC_").split(".")))


def test_a_release_has_these_files(dist: Path) -> None:
    """A source distribution, three wheels of tailbone, one of tailbone-verify, and a bill of materials."""
    version = build.version()
    assert {path.name for path in dist.iterdir() if path.name != ".gitignore"} == {
        f"tailbone-{version}.tar.gz",
        f"tailbone-{version}-cp311-abi3-manylinux_2_28_aarch64.whl",
        f"tailbone-{version}-cp311-abi3-manylinux_2_28_x86_64.whl",
        f"tailbone-{version}-py3-none-any.whl",
        f"tailbone_verify-{version}-py3-none-any.whl",
        "tailbone.cdx.json",
    }


def test_all_wheels_have_the_same_modules_and_dependencies(wheels: Wheels) -> None:
    """Only the library differs: installers read the dependencies of one wheel and install another."""
    info = f"tailbone-{build.version()}.dist-info"
    native = {LIBRARY, EXTENSION, f"{info}/sboms/tailbone.cdx.json"}
    assert names(wheels.native) - native == names(wheels.aarch64) - native == names(wheels.pure)
    assert native <= names(wheels.native) & names(wheels.aarch64)
    metadata = {
        zipfile.ZipFile(wheel).read(f"{info}/METADATA")
        for wheel in (wheels.native, wheels.aarch64, wheels.pure)
    }
    assert len(metadata) == 1
    assert not [name for name in names(wheels.native) if not name.startswith(("tailbone/", info))]


def test_licences_and_bill_of_materials_are_in_the_wheel(wheels: Wheels) -> None:
    """They are those of the repository, where the standards put them (PEP 639, PEP 770)."""
    archive = zipfile.ZipFile(wheels.native)
    info = f"tailbone-{build.version()}.dist-info"
    for name, path in {
        "licenses/LICENSE": "LICENSE",
        "licenses/tsnet_go/LICENSES.txt": "tsnet_go/LICENSES.txt",
        "sboms/tailbone.cdx.json": "release/tailbone.cdx.json",
    }.items():
        assert archive.read(f"{info}/{name}") == (ROOT / path).read_bytes()


def test_the_source_distribution_has_all_that_is_needed_to_build_it(dist: Path) -> None:
    """The sources of the library, their licences, and the build's own files are in it."""
    [source] = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = {
        name
        for name in tracked
        if re.match(r"(tailbone|tsnet_go|release)/|build\.py|pyproject\.toml|LICENSE", name)
    }
    assert {
        name
        for name in wanted - held
        if not name.endswith(("_test.go", ".gitignore")) and "/testdata/" not in name
    } == set()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", [LIBRARY, EXTENSION])
def test_the_binaries_are_for_the_platform_of_their_wheel(dist: Path, machine: str, name: str) -> None:
    """They have its machine code, and need no newer glibc than 2.28."""
    [wheel] = dist.glob(f"*-manylinux_2_28_{machine}.whl")
    file = elf(wheel, name)
    assert (file["e_machine"], file["e_type"]) == (f"EM_{machine.upper()}", "ET_DYN")
    assert max(needed_glibc(file)) <= (2, 28)


def test_aarch64_has_the_same_interface_as_x86_64(wheels: Wheels) -> None:
    """The library exports the functions of _cdef.h, and the extension its one entry, on both."""
    declared = set(re.findall(r"\b(tb_\w+)\(", (ROOT / "tailbone/tsnet/_cdef.h").read_text()))
    for wheel in (wheels.native, wheels.aarch64):
        assert {name for name in exported(elf(wheel, LIBRARY)) if name.startswith("tb_")} == declared
        assert "PyInit__ffi" in exported(elf(wheel, EXTENSION))


@pytest.mark.parametrize(
    ("platform", "abi", "version", "chosen"),
    [
        ("manylinux_2_28_x86_64", "abi3", "3.11", "cp311-abi3-manylinux_2_28_x86_64"),
        ("manylinux_2_28_aarch64", "abi3", "3.14", "cp311-abi3-manylinux_2_28_aarch64"),
        ("manylinux_2_28_x86_64", "cp314t", "3.14", "py3-none-any"),
        ("manylinux_2_17_x86_64", "abi3", "3.12", "py3-none-any"),
        ("musllinux_1_2_x86_64", "abi3", "3.12", "py3-none-any"),
        ("macosx_14_0_arm64", "abi3", "3.13", "py3-none-any"),
        ("win_amd64", "abi3", "3.13", "py3-none-any"),
    ],
)
def test_pip_chooses_the_wheel(
    dist: Path, tmp_path: Path, platform: str, abi: str, version: str, chosen: str
) -> None:
    """Where the library cannot be loaded, as on musl and free-threaded Pythons, it has none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-index", "--no-deps"]
    command += ["--only-binary=:all:"]
    command += ["--find-links", dist, "--platform", platform, "--abi", abi, "--python-version", version]
    subprocess.run([*command, "--dest", tmp_path, "tailbone"], check=True)
    assert [path.name for path in tmp_path.iterdir()] == [f"tailbone-{build.version()}-{chosen}.whl"]
