"""A role of AWS: where it is assumed, and under which name."""

from __future__ import annotations

import pytest

from tailbone.client.aws import Role

ARN = "arn:aws:iam::123456789012:role/ci/Deploy"


def test_the_endpoint_is_the_regions() -> None:
    """Without a region it is the global one; China has its own domain."""
    assert Role(ARN, "eu-central-1").url == "https://sts.eu-central-1.amazonaws.com/"
    assert Role(ARN).url == "https://sts.amazonaws.com/"
    china = ARN.replace("arn:aws:", "arn:aws-cn:")
    assert Role(china, "cn-north-1").url == "https://sts.cn-north-1.amazonaws.com.cn/"
    assert Role(ARN).account == "123456789012"


@pytest.mark.parametrize(
    ("name", "legal"), [("node:nABC", "node-nABC"), ("x", "x-"), ("a" * 80, "a" * 64), ("ä@b", "-@b")]
)
def test_the_session_name_is_made_legal(name: str, legal: str) -> None:
    """A token's `sub` has a colon."""
    assert Role(ARN, session_name=name).legal_session_name == legal
