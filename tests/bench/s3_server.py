"""moto's S3 server in its own process: ``python -m tests.bench.s3_server BUCKET``.

It prints ``{"endpoint": URL}`` when the bucket exists, and runs until it gets a signal.
"""

from __future__ import annotations

import json
import sys
import threading

import boto3  # type: ignore[import-untyped,unused-ignore]
from moto.server import ThreadedMotoServer

# moto does not check signatures, but botocore needs credentials to sign with.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}


def main() -> None:
    """Create the bucket, and serve."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=CREDENTIALS["AWS_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=sys.argv[1])
    print(json.dumps({"endpoint": endpoint}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
