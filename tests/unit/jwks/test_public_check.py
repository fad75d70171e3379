"""check_public_documents, at a plain web server with each fault that a bucket's public URL can have."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.web import JSON, Certificate, Page, WebServer

from tailbone.jwks import public_check
from tailbone.jwks.discovery import Discovery
from tailbone.jwks.document import Document, PublishedKey
from tailbone.jwks.public_check import Finding, check_public_documents, summary
from tailbone.keys.signing_key import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate("tb-1", algorithm="ES256", size=0, created_at=1)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def site(web: WebServer, key: SigningKey) -> Site:
    return Site(web, key)


class Site:
    """A bucket's public URL with good documents, until a test replaces one.

    Attributes:
        web: its web server.
        jwks: the good JWKS.
        discovery: the good discovery document's members.
    """

    def __init__(self, web: WebServer, key: SigningKey) -> None:
        self.web = web
        self.signing = PublishedKey(key.public_jwk())
        self._issuer = Discovery(web.url)
        self.jwks = Document.empty().with_key(key.public_jwk(), key.thumbprint)
        self.discovery = self._issuer.members(self.jwks)
        self.serve(DISCOVERY, json.dumps(self.discovery).encode())
        self.serve(JWKS, self.jwks.render())

    def serve(self, path: str, body: bytes = b"", status: int = 200, **fields: str) -> None:
        """Serve something else, with further header fields."""
        given = {name.replace("_", "-"): value for name, value in fields.items()}
        self.web.pages[path] = Page(body, {**JSON, **given}, status)

    async def check(self, **options: Any) -> list[Finding]:
        return (await check_public_documents(self._issuer, self.signing, max_age_s=300.0, **options)).findings

    async def problems(self) -> list[Finding]:
        return [finding for finding in await self.check() if finding.level != "ok"]


async def test_good_documents_are_found_good(site: Site) -> None:
    """Each check has its finding; neither credentials nor cookies are sent."""
    findings = await site.check()
    assert [finding.check for finding in findings] == [
        "discovery document",
        "issuer",
        "jwks_uri",
        "JWKS",
        "signing key",
    ]
    assert summary(findings) == "ok"
    assert [request["path"] for request in site.web.requests] == [DISCOVERY, JWKS]
    assert not {"Authorization", "Cookie"} & {name for request in site.web.requests for name in request}


async def test_another_issuer(site: Site) -> None:
    """The issuer is compared byte by byte: a trailing slash is another issuer."""
    site.serve(DISCOVERY, json.dumps(site.discovery | {"issuer": f"{site.web.url}/"}).encode())
    [found] = await site.problems()
    assert (found.level, found.check) == ("error", "issuer")
    assert found.text == (f'{site.web.url}{DISCOVERY} has the issuer "{site.web.url}/", not "{site.web.url}"')


async def test_another_jwks_uri(site: Site) -> None:
    """Verifiers would fetch other keys."""
    site.serve(DISCOVERY, json.dumps(site.discovery | {"jwks_uri": "https://other.example"}).encode())
    [found] = await site.problems()
    assert (found.level, found.check) == ("error", "jwks_uri")
    assert '"https://other.example"' in found.text


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
async def test_a_redirect(site: Site, path: str) -> None:
    """It is an error, and not followed."""
    site.serve(path, status=301, Location="https://s3.eu-north-1.amazonaws.com/x")
    [found] = await site.problems()
    assert found.level == "error"
    assert found.text.endswith(f'{path} answers 301, a redirect to "https://s3.eu-north-1.amazonaws.com/x"')
    assert "verifiers do not follow it" in found.fix


async def test_a_stale_copy(site: Site) -> None:
    """A cache that keeps the JWKS too long lacks the signing key, and says how old its copy is."""
    site.serve(JWKS, b'{"keys":[]}', Age="4000")
    aged, lacking = await site.problems()
    assert (aged.level, aged.check) == ("warning", "JWKS")
    assert "is a copy that is 4000 s old, older than keys.maxAge, 300 s" in aged.text
    assert (lacking.level, lacking.check) == ("error", "signing key")
    assert f"{JWKS} lacks the signing key tb-1" in lacking.text


async def test_another_key_under_the_same_kid(site: Site) -> None:
    """The thumbprint is compared too."""
    other = SigningKey.generate("tb-1", algorithm="ES256", size=0, created_at=1)
    site.serve(JWKS, Document.empty().with_key(other.public_jwk(), other.thumbprint).render())
    [found] = await site.problems()
    assert found.level == "error"
    assert "contains another key under the kid tb-1" in found.text


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
async def test_html(site: Site, path: str) -> None:
    """As a web server answers that knows better."""
    site.serve(path, b"<html>hello</html>", Content_Type="text/html; charset=utf-8")
    content_type, body = await site.problems()
    assert 'has the Content-Type "text/html; charset=utf-8"' in content_type.text
    assert body.text.endswith("is not a JSON object in UTF-8" if path == DISCOVERY else "is not a JWKS")
    assert {content_type.level, body.level} == {"error"}


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
async def test_text_that_is_not_utf_8(site: Site, path: str, encoding: str) -> None:
    """Many verifiers read nothing else (RFC 8259 section 8.1)."""
    site.serve(path, site.web.pages[path].body.decode().encode(encoding))
    [found] = await site.problems()
    assert (found.level, found.check) == ("error", "discovery document" if path == DISCOVERY else "JWKS")


async def test_an_encoding_that_was_not_asked_for(site: Site) -> None:
    """A verifier that asked for the plain document would read something else."""
    site.serve(JWKS, site.jwks.render(), Content_Encoding="br")
    [found] = await site.problems()
    assert (found.level, found.check) == ("error", "JWKS")
    assert 'has the Content-Encoding "br", which was not asked for' in found.text


@pytest.mark.parametrize(
    ("status", "fix"), [(403, "let everyone read it"), (404, "publish it there"), (500, "correct the web")]
)
async def test_other_answers(site: Site, status: int, fix: str) -> None:
    """S3 answers 403 if an object is private, and also if it does not exist."""
    site.serve(DISCOVERY, status=status)
    [found] = await site.problems()
    assert (found.level, found.text) == ("error", f"{site.web.url}{DISCOVERY} answers {status}")
    assert found.fix.startswith(fix)


@pytest.mark.parametrize(
    ("caching", "text"),
    [
        ("", "has no Cache-Control with max-age"),
        ("public", "has no Cache-Control with max-age"),
        ("public, max-age=3600", "may be cached for 3600 s, longer than keys.maxAge, 300 s"),
        ("max-age=60, s-maxage=86400", "may be cached for 86400 s, longer than keys.maxAge, 300 s"),
    ],
)
async def test_caching_for_longer_than_max_age(site: Site, caching: str, text: str) -> None:
    """A key would sign before all verifiers know it."""
    site.serve(JWKS, site.jwks.render(), Cache_Control=caching)
    [found] = await site.problems()
    assert (found.level, found.check) == ("warning", "JWKS")
    assert text in found.text


@pytest.mark.parametrize("caching", ["no-store", "private, no-cache", "max-age=0"])
async def test_caching_for_shorter_is_fine(site: Site, caching: str) -> None:
    """It costs only requests."""
    site.serve(JWKS, site.jwks.render(), Cache_Control=caching)
    assert await site.problems() == []


async def test_a_document_that_is_too_long(site: Site) -> None:
    """No more than 64 KiB are read."""
    site.serve(DISCOVERY, b" " * (public_check.LARGEST + 1))
    [found] = await site.problems()
    assert found.text.endswith("is longer than 64 KiB")


async def test_a_server_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check ends by itself."""
    monkeypatch.setattr(public_check, "FETCH_S", 0.05)
    waits = threading.Event()
    site.web.pages[DISCOVERY] = Page(waits=waits)
    [found] = await site.problems()
    waits.set()
    assert "did not answer within" in found.text


async def test_a_server_that_is_not_there(key: SigningKey) -> None:
    """The message says what to check."""
    with WebServer() as gone:
        site = Site(gone, key)
    [found] = await site.problems()
    assert found.text == f"{gone.url}{DISCOVERY} cannot be reached (ConnectError)"


async def test_a_jwks_at_a_url_that_no_client_can_use(site: Site, web: WebServer) -> None:
    """The setting keys.jwksUri may be wrong."""
    discovery = Discovery(web.url, jwks_uri=f"https://{'x' * 70}.example\x7f/jwks.json")
    site.serve(DISCOVERY, json.dumps(discovery.members(site.jwks)).encode())
    public = await check_public_documents(discovery, site.signing, max_age_s=300.0)
    assert [finding.check for finding in public.findings if finding.level != "ok"] == ["JWKS"]
    assert public.jwks is None


# --- TLS


async def test_a_good_certificate(tmp_path: Path, key: SigningKey) -> None:
    """The summary says for how long it is valid."""
    certificate = Certificate(tmp_path, days=90)
    with WebServer(certificate) as web:
        findings = await Site(web, key).check(tls=certificate.client())
    assert summary(findings) == "ok; the certificate is valid for 90 more days"


async def test_a_certificate_that_ends_soon(tmp_path: Path, key: SigningKey) -> None:
    """It is a warning from two weeks on."""
    certificate = Certificate(tmp_path, days=13)
    with WebServer(certificate) as web:
        findings = await Site(web, key).check(tls=certificate.client())
    assert summary(findings) == "the certificate is valid for 13 more days: renew it"


async def test_a_certificate_of_an_unknown_ca(tmp_path: Path, key: SigningKey) -> None:
    """Nothing is sent to such a server."""
    with WebServer(Certificate(tmp_path)) as web:
        [found] = await Site(web, key).problems()
        assert web.requests == []
    assert (found.level, found.check) == ("error", "certificate")
    assert found.text.startswith(
        f"the certificate of {web.url.removeprefix('https://')} is not trusted: self"
    )


async def test_an_expired_certificate(tmp_path: Path, key: SigningKey) -> None:
    """It is an error."""
    certificate = Certificate(tmp_path, days=-0.5)
    with WebServer(certificate) as web:
        [found] = await Site(web, key).check(tls=certificate.client())
    assert "is not trusted: certificate has expired" in found.text
