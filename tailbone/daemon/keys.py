"""Make the keys' lifecycle from the settings, and run housekeeping without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tailbone.counting import StoreCounts
from tailbone.daemon.audit import open_audit_file
from tailbone.errors import ConfigError
from tailbone.jwks import store_of
from tailbone.jwks.counted import CountedStore
from tailbone.process.log import both, get_logger

if TYPE_CHECKING:
    from tailbone.config.model import Config
    from tailbone.jwks.discovery import DiscoveryPublisher
    from tailbone.jwks.store import Store
    from tailbone.keys.housekeeping import Housekeeping
    from tailbone.keys.lifecycle import KeyLifecycle
    from tailbone.keys.settings import KeySettings
    from tailbone.process.log import Logger


def key_lifecycle(
    config: Config, log: Logger, store_counts: StoreCounts, trail: Logger | None = None
) -> KeyLifecycle:
    """Make the keys' lifecycle, not started; the imports that this needs take up to half a second.

    Args:
        config: all settings.
        log: for everything that happens to keys.
        store_counts: counts the calls of the JWKS's store.
        trail: gets the lines of changes, too, if there is an audit file.

    Raises:
        ConfigError: keys.bucket does not name a store.
    """
    from tailbone.keys.folder import KeyFolder
    from tailbone.keys.lifecycle import KeyLifecycle

    keys = config.keys
    bucket = store_of(keys.bucket)
    store = CountedStore(bucket, store_counts) if bucket else None
    return KeyLifecycle(
        folder=KeyFolder(Path(keys.dir)),
        store=store,
        path=keys.key_path,
        settings=key_settings(config),
        log=log,
        changes=both(log, trail),
        discovery=_discovery_publisher(config, store, log) if store else None,
    )


def key_settings(config: Config) -> KeySettings:
    """Return the settings of the keys."""
    from tailbone.keys.settings import KeySettings

    keys = config.keys
    return KeySettings(
        prefix=config.key.prefix,
        algorithm=keys.algorithm,
        size=keys.size,
        expiry_s=keys.expiry_s,
        max_age_s=keys.max_age_s,
        activate_after_s=keys.wait_before_signing_s,
        rotate_every_s=keys.rotate_every_s,
        conditional_writes=keys.conditional_writes,
    )


def _discovery_publisher(config: Config, store: Store, log: Logger) -> DiscoveryPublisher | None:
    """Make what publishes the discovery document; None if the issuer is not a URL, or by the settings."""
    from tailbone.jwks.discovery import DiscoveryPublisher, discovery_of

    keys = config.keys
    discovery = discovery_of(keys.issuer, jwks_uri=keys.jwks_uri)
    if discovery is None or keys.discovery_path == "none":
        return None
    return DiscoveryPublisher(
        discovery,
        store,
        keys.discovery_path or str(PurePosixPath(keys.key_path).with_name("openid-configuration")),
        max_age_s=keys.max_age_s,
        conditional=keys.conditional_writes,
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
    audit_file = None if dry_run else open_audit_file(config)
    keys = key_lifecycle(config, get_logger(), StoreCounts(), audit_file.log if audit_file else None)
    try:
        return await keys.housekeeping(force=force, dry_run=dry_run)
    finally:
        await keys.close()
        if audit_file is not None:
            audit_file.close()
