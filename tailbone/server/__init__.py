"""The issuer's HTTP interface, on Sanic."""

from __future__ import annotations

from tailbone.server.app import IssuerServer
from tailbone.server.endpoints import Endpoints
from tailbone.server.hosts import AllowedHosts
from tailbone.server.probes import OutsideProbes, Probes
from tailbone.server.rate_limit import RateLimit

__all__ = ["AllowedHosts", "Endpoints", "IssuerServer", "OutsideProbes", "Probes", "RateLimit"]
