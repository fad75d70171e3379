"""Response: the field lines of an answer."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from tailbone.server.responses import Response


def test_an_answer_is_json_that_nobody_keeps() -> None:
    """Date, and no-store unless another time is given."""
    fields = dict(Response(b"{}").processed_headers)
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"cache-control"] == b"no-store"
    assert parsedate_to_datetime(fields[b"date"].decode()).tzinfo is not None
    assert dict(Response(b"{}", 200, "public, max-age=5").processed_headers)[b"cache-control"] == (
        b"public, max-age=5"
    )


def test_fields_that_are_added_come_after() -> None:
    """As a 405 has Allow."""
    response = Response(b"{}", 405)
    response.headers["Allow"] = "POST"
    assert list(response.processed_headers)[-1] == (b"Allow", b"POST")


def test_not_modified_has_no_content_type() -> None:
    """RFC 9110 section 15.4.5: it has no content."""
    assert b"content-type" not in dict(Response(b"", 304).processed_headers)
