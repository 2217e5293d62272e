"""A real S3 server (moto's), and the way to it as boto3 finds it: by its own variables."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "evidence"
needs_s3 = pytest.mark.skipif(
    importlib.util.find_spec("boto3") is None or importlib.util.find_spec("moto") is None,
    reason="boto3 or moto is not installed: pip install 'webhook[test]'",
)


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a server with an empty bucket; yield its URL."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "a-very-secret-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        boto3.session.Session().client("s3").create_bucket(Bucket=BUCKET)
        yield variables["AWS_ENDPOINT_URL"]
    finally:
        server.stop()
