"""The wheels that ``.ci/wheels`` builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path


class Wheels(NamedTuple):
    """The wheels of a folder.

    Attributes:
        native: with the library, for x86-64.
        aarch64: with the library, for aarch64.
        pure: without the library.
        verifier: of tailbone-verify.
    """

    native: Path
    aarch64: Path
    pure: Path
    verifier: Path

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Find one wheel of each kind."""

        def one(pattern: str) -> Path:
            [wheel] = folder.glob(pattern)
            return wheel

        return cls(
            native=one("tailbone-*-manylinux_2_28_x86_64.whl"),
            aarch64=one("tailbone-*-manylinux_2_28_aarch64.whl"),
            pure=one("tailbone-*-py3-none-any.whl"),
            verifier=one("tailbone_verify-*.whl"),
        )
