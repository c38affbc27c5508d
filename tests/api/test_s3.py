"""Code that comes from a configured S3 endpoint, through a real server of files."""

from __future__ import annotations

import functools
import http.server
import threading
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import ECHO, ROLE, RUNTIME, archive, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """Yield the address of a server that has `bucket/code.zip`."""
    bucket = tmp_path / "objects" / "bucket"
    bucket.mkdir(parents=True)
    (bucket / "code.zip").write_bytes(archive(app=ECHO))
    handler = functools.partial(Quiet, directory=str(bucket.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{files.server_port}"
        files.shutdown()
        thread.join()


def test_a_function_of_an_object(endpoint: str, tmp_path: Path) -> None:
    """It is fetched, and runs; one that is not there is an error, and leaves nothing."""
    config = tmp_path / "settings.toml"
    config.write_text(f'[s3]\nendpoint = "{endpoint}"\n', encoding="utf-8")
    with serving("--config", str(config)) as server:
        client = server.client()
        known = {"Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler"}
        client.create_function(
            FunctionName="kept", Code={"S3Bucket": "bucket", "S3Key": "code.zip"}, **known
        )
        client.get_waiter("function_active_v2").wait(
            FunctionName="kept", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
        )
        with pytest.raises(ClientError, match="GetObject") as caught:
            client.create_function(
                FunctionName="none", Code={"S3Bucket": "bucket", "S3Key": "no.zip"}, **known
            )
        answer = client.invoke(FunctionName="kept", Payload=b'{"a": 1}')["Payload"].read()
        left = list((server.state / "uploads").iterdir())
        client.close()

    assert b'{"a": 1}' == answer
    assert "InvalidParameterValueException" == caught.value.response["Error"]["Code"]
    assert [] == left
