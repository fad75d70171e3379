"""Sanic middleware: ``request.ctx.claims`` has the claims of the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanic.response import raw

from tailbone.verify.bearer import ANYBODY, authorize_async, refusal_of
from tailbone.verify.errors import VerificationError

if TYPE_CHECKING:
    from sanic import Blueprint, Request, Sanic
    from sanic.response import HTTPResponse

    from tailbone.verify.require import Requirement
    from tailbone.verify.verifier import AsyncVerifier


def protect(
    routes: Sanic[Any, Any] | Blueprint, verifier: AsyncVerifier, require: Requirement = ANYBODY
) -> None:
    """Refuse requests without a good token.

    Args:
        routes: the app or blueprint to protect.
        verifier: verifies the tokens.
        require: who is permitted.
    """

    async def check(request: Request) -> HTTPResponse | None:
        authorization = request.headers.getall("authorization", [])
        try:
            request.ctx.claims = await authorize_async(authorization, verifier, require)
        except VerificationError as error:
            status, fields, body = refusal_of(error, require)
            return raw(body, status, fields, content_type=fields.pop("Content-Type"))
        return None

    routes.on_request(check)
