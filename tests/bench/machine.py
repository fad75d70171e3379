"""Describe the machine and the programs: figures of different ones are not comparable."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from tailbone.version import commit, version

_PACKAGES = ("sanic", "cryptography", "msgspec", "grpcio")


def describe() -> dict[str, str]:
    """Return processor, system and versions, by name."""
    return {
        "processor": f"{_cpuinfo('model name')}, {os.cpu_count()} processors",
        "AVX512-IFMA": "yes" if has_avx512_ifma() else "no",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "OpenSSL": backend.openssl_version_text(),
        "tailbone": f"{version()} {commit()}".strip(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }


def has_avx512_ifma() -> bool:
    """Return whether the processor has the instructions of OpenSSL's fastest RSA code."""
    return "avx512ifma" in _cpuinfo("flags").split()


def _cpuinfo(name: str) -> str:
    """Return a field of the first processor (proc_cpuinfo(5)); empty if there is none."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
