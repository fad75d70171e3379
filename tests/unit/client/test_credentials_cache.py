"""Credentials on disk: whose they are, and that parallel processes make one request."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from tailbone.client import credentials_cache
from tailbone.client.credentials_cache import CredentialsCache
from tailbone.errors import ExchangeError

if TYPE_CHECKING:
    from pathlib import Path


def entry_of(folder: Path) -> Path:
    """Return the file of the one entry."""
    [entry] = folder.glob("*.json")
    return entry


def test_an_entry_is_private(tmp_path: Path) -> None:
    """Its folder too; each key has its own."""
    cache = CredentialsCache(["role", "a"], tmp_path / "tailbone")
    with cache.locked():
        assert cache.read() == {}
        cache.write({"x": 1})
    assert cache.read() == {"x": 1}
    assert CredentialsCache(["role", "b"], tmp_path / "tailbone").read() == {}
    assert stat.S_IMODE((tmp_path / "tailbone").stat().st_mode) == 0o700
    assert stat.S_IMODE(entry_of(tmp_path / "tailbone").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff", " " * 100_000 + "{}"])
def test_what_is_no_entry_is_empty(text: str, tmp_path: Path) -> None:
    """As after a crash of another program."""
    cache = CredentialsCache(["a"], tmp_path)
    cache.write({"x": 1})
    entry_of(tmp_path).write_bytes(text.encode("latin-1"))
    assert cache.read() == {}


def test_an_entry_that_others_can_write_does_not_count(tmp_path: Path) -> None:
    """They could have written it."""
    cache = CredentialsCache(["a"], tmp_path)
    cache.write({"x": 1})
    entry = entry_of(tmp_path)
    entry.chmod(0o646)
    assert cache.read() == {}
    entry.chmod(0o600)
    assert cache.read() == {"x": 1}


def test_the_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG's variable wins over the home folder."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache" / "tailbone").mkdir(parents=True)
    CredentialsCache(["a"]).write({})
    assert entry_of(tmp_path / ".cache" / "tailbone")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "tailbone").mkdir(parents=True)
    CredentialsCache(["a"]).write({})
    assert entry_of(tmp_path / "xdg" / "tailbone")


def test_parallel_calls_make_one_request(tmp_path: Path) -> None:
    """The others wait for the first one's entry."""
    requests = []

    def call() -> None:
        cache = CredentialsCache(["a"], tmp_path)
        with cache.locked():
            if not cache.read():
                requests.append(1)
                cache.write({"pid": os.getpid()})

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert requests == [1]


def test_a_lock_that_is_never_released_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it."""
    monkeypatch.setattr(credentials_cache, "_LOCK_S", 0.05)
    with (
        CredentialsCache(["a"], tmp_path).locked(),
        pytest.raises(ExchangeError, match=r"another process holds .*\.lock"),
        CredentialsCache(["a"], tmp_path).locked(),
    ):
        pass
