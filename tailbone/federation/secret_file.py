"""Read a file that contains one secret: an auth key or an ID token."""

from __future__ import annotations

from pathlib import Path

from tailbone.config.sources import read_limited
from tailbone.errors import ConfigError
from tailbone.files import fix_of_denial


def read_secret(file: str, setting: str) -> str:
    """Return the text of a file, without white space around it.

    Args:
        file: its path.
        setting: what names it, for the error.

    Raises:
        ConfigError: it cannot be read, or is empty. The message names this process's user if it may not.
    """
    path = Path(file)
    try:
        text = read_limited(path).decode().strip()
    except PermissionError as error:
        why = f"{error.strerror}; {fix_of_denial(path)}"
    except OSError as error:
        why = str(error.strerror)
    except UnicodeDecodeError:
        why = "not text"
    else:
        if text:
            return text
        raise ConfigError(f"{setting}: {file} is empty")
    raise ConfigError(f"{setting}: {file} cannot be read: {why}")
