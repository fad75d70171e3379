"""The issuer's HTTP face: IssuerServer. The only package that imports Sanic."""

from __future__ import annotations

from tailbone.server.app import IssuerServer

__all__ = ["IssuerServer"]
