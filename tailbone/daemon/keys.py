"""Make the keys' lifecycle from the settings, and run housekeeping without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from tailbone.errors import ConfigError
from tailbone.jwks import store_of
from tailbone.process.log import get_logger

if TYPE_CHECKING:
    from tailbone.config.model import Config
    from tailbone.keys.lifecycle import KeyLifecycle
    from tailbone.keys.plan import Housekeeping
    from tailbone.process.log import Logger


def key_lifecycle(config: Config, log: Logger) -> KeyLifecycle:
    """Make the keys' lifecycle, not started; the imports that this needs take up to half a second.

    Raises:
        ConfigError: keys.bucket does not name a store.
    """
    from tailbone.keys.folder import KeyFolder
    from tailbone.keys.lifecycle import KeyLifecycle, KeySettings

    keys = config.keys
    return KeyLifecycle(
        folder=KeyFolder(Path(keys.dir)),
        store=store_of(keys.bucket),
        path=keys.key_path,
        settings=KeySettings(
            prefix=config.key.prefix,
            algorithm=keys.algorithm,
            size=keys.size,
            expiry_s=keys.expiry_s,
            max_age_s=keys.max_age_s,
            activate_after_s=keys.max_age_s if keys.activate_after_s is None else keys.activate_after_s,
            rotate_every_s=keys.rotate_every_s,
            conditional_writes=keys.conditional_writes,
        ),
        log=log,
    )


def housekeeping(config: Config, *, force: bool, dry_run: bool) -> Housekeeping:
    """Run ``tailbone server housekeeping``, which needs no node; see ``KeyLifecycle.housekeeping``.

    Raises:
        ConfigError: no bucket is set.
        TailboneError: nothing was moved.
    """
    return asyncio.run(_housekeeping(config, force=force, dry_run=dry_run))


async def _housekeeping(config: Config, *, force: bool, dry_run: bool) -> Housekeeping:
    if not config.keys.bucket:
        raise ConfigError(
            "keys.bucket is not set: there is no published JWKS to bring the key folder in line with"
        )
    keys = key_lifecycle(config, get_logger())
    try:
        return await (keys.housekeeping_to_do if dry_run else keys.housekeeping)(force=force)
    finally:
        await keys.close()
