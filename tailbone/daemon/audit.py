"""Open the audit file that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tailbone.errors import ConfigError
from tailbone.process.audit_file import AuditFile

if TYPE_CHECKING:
    from tailbone.config.model import Config
    from tailbone.process.log import Logger


def open_audit_file(config: Config) -> AuditFile | None:
    """Open the file of ``log.auditFile``; None if there is none.

    Raises:
        ConfigError: it cannot be used.
    """
    path = config.log.audit_file
    if not path:
        return None
    try:
        return AuditFile(Path(path))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"log.auditFile ({config.origin('log.auditFile')}): {path} {_why(error)}"
        ) from error


def reopen(file: AuditFile, log: Logger) -> None:
    """Open an audit file again after its rotation, and log whether that succeeded."""
    try:
        file.reopen()
    except (OSError, ValueError) as error:
        log.error("audit file not reopened: its lines still go to the previous one", why=_why(error))
    else:
        log.info("audit file reopened")


def _why(error: OSError | ValueError) -> str:
    return f"cannot be opened: {error.strerror}" if isinstance(error, OSError) else str(error)
