"""Build what a release uploads, and check it: ``.ci/wheels [DIR]``.

DIR gets the source distribution, tailbone's wheels, tailbone-verify's wheel, and the bill of materials. All
are built twice, in different folders, and must have the same bytes. Zig compiles the C parts, so no other
compiler is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

import build

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERIFIER = ("__init__.py", "algorithms.py", "base64url.py", "errors.py", "py.typed", "text.py", "verify")
_WHEELS = (*build.RELEASED, "any")


def main() -> None:
    """Build all into the folder that the command line names, else into dist."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve()
    # Modes of files are part of an archive.
    os.umask(0o022)
    os.environ.setdefault("SOURCE_DATE_EPOCH", _time_of_the_commit())
    with tempfile.TemporaryDirectory(prefix="tailbone-wheels-") as folder:
        first, second = Path(folder, "first"), Path(folder, "another", "folder")
        unpacked = _build_all(build.ROOT, first)
        # setuptools adds it to a source distribution, and would list it as a source in the next one.
        (unpacked / "setup.cfg").unlink()
        _build_all(unpacked, second)
        built = sorted(first.glob("tailbone*"))
        faults = [fault for path in built for fault in _differences(path, second / path.name)]
        faults += [fault for wheel in first.glob("*.whl") for fault in _paths(wheel, folder)]
        for name in build.RELEASED:
            [wheel] = first.glob(f"*-{name}.whl")
            faults += [*_audit(wheel, name), *_runpaths(wheel)]
        if faults:
            raise SystemExit("\n".join(faults))
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("tailbone*"):
            old.unlink()
        for path in (*built, build.SBOM):
            shutil.copy(path, target)
            print(target / path.name)


def _time_of_the_commit() -> str:
    command = ["git", "-C", str(build.ROOT), "log", "-1", "--format=%ct"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _build_all(source: Path, target: Path) -> Path:
    """Build a source distribution from a source tree, and all wheels from it; return where it is unpacked."""
    _uv_build(source, target, "--sdist")
    [made] = target.glob("*.tar.gz")
    for name in _WHEELS:
        _uv_build(made, target, "--wheel", "--config-setting", f"wheel={name}")
    shutil.unpack_archive(made, target / "unpacked")
    [unpacked] = (target / "unpacked").iterdir()
    verifier = target / "verifier"
    _copy_verifier(unpacked, verifier)
    _uv_build(verifier, target, "--wheel")
    return unpacked


def _uv_build(source: Path, target: Path, *options: str) -> None:
    constraints = build.ROOT / "release" / "constraints.txt"
    command = ["uv", "build", "--quiet", "--no-create-gitignore", "--python", sys.executable]
    subprocess.run(
        [*command, "--build-constraints", constraints, "--out-dir", target, *options, source], check=True
    )


def _copy_verifier(source: Path, target: Path) -> None:
    shutil.copytree(source / "release" / "verify", target)
    shutil.copy(source / "LICENSE", target)
    (target / "VERSION").write_text(build.version())
    (target / "tailbone").mkdir()
    for name in _VERIFIER:
        path = source / "tailbone" / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, target / "tailbone" / name)


def _differences(path: Path, again: Path) -> Iterator[str]:
    if path.read_bytes() != again.read_bytes():
        yield f"{path.name}: another build of the same sources has other bytes"


def _members(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        yield from ((name, archive.read(name)) for name in archive.namelist())


def _paths(wheel: Path, folder: str) -> Iterator[str]:
    """Yield where a path of this machine is: the checkout, the home folder, a folder of a build."""
    for place in (f"{build.ROOT}/", f"{Path.home()}/", folder, "/go-build"):
        for name, content in _members(wheel):
            if place.encode() in content:
                yield f"{wheel.name}: {name} contains {place}"


def _audit(wheel: Path, tag: str) -> Iterator[str]:
    """Yield a fault if auditwheel finds that the wheel needs more than its tag says."""
    command = [sys.executable, "-m", "auditwheel", "show", wheel]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    print(shown.strip())
    found = re.search(r'platform tag: "manylinux_(\d+)_(\d+)_(\w+)"', " ".join(shown.split()))
    _, major, minor, architecture = tag.split("_", 3)
    if found is None or found[3] != architecture or (int(found[1]), int(found[2])) > (int(major), int(minor)):
        yield f"{wheel.name}: auditwheel does not agree with the tag"


def _runpaths(wheel: Path) -> Iterator[str]:
    for name, content in _members(wheel):
        if name.endswith(".so"):
            found = [
                tag.runpath if tag.entry.d_tag == "DT_RUNPATH" else tag.rpath
                for section in ELFFile(BytesIO(content)).iter_sections()
                if isinstance(section, DynamicSection)
                for tag in section.iter_tags()
                if tag.entry.d_tag in ("DT_RUNPATH", "DT_RPATH")
            ]
            expected = [] if name.endswith(build.LIBRARY) else ["$ORIGIN"]
            if found != expected:
                yield f"{wheel.name}: the run path of {name} is {found}, not {expected}"


if __name__ == "__main__":
    main()
