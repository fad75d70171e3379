"""The servers of the components."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tailbone.config.load import load
from tailbone.daemon.servers import _jwks_url


@pytest.mark.parametrize(
    ("component", "imported"), [("issuer", "['sanic']"), ("admin", "['grpc']")], ids=["issuer", "admin"]
)
def test_a_component_imports_only_its_own_framework(component: str, imported: str) -> None:
    code = (
        "import sys; from tailbone.daemon.servers import import_servers; import_servers(sys.argv[1:]);"
        "print([name for name in ('sanic', 'grpc') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, component], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == imported


@pytest.mark.parametrize(
    ("bucket", "url"),
    [
        ("", ""),
        ("my-bucket", "s3://my-bucket/.well-known/jwks.json"),
        ("file:///srv/jwks/", "file:///srv/jwks/.well-known/jwks.json"),
    ],
)
def test_the_status_has_the_url_of_the_jwks(bucket: str, url: str) -> None:
    assert _jwks_url(load({"keys.bucket": bucket} if bucket else {}, environ={})) == url
