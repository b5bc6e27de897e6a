"""An object store that we did not write: moto's S3 server, from an environment of its own (``.venv-s3``)."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3

from tests.conftest import ROOT
from tests.fakes.processes import SECONDS, until

PROGRAM = ROOT / ".venv-s3" / "bin" / "moto_server"
BUCKET = "logs"
# The server looks only whether there is a signature. Reading a public bucket needs none.
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=tester/20260101/us-east-1/s3/aws4_request, Signature=0"
}

READABLE = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{BUCKET}/*",
        }
    ],
}


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A running server with one bucket; it keeps everything in memory."""

    address: str
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to write there."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "tester",
        }

    def request(self, method: str, name: str = "", body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        url = f"{self.address}/{BUCKET}{name}" if name[:1] in ("", "?") else f"{self.address}/{BUCKET}/{name}"
        headers = {} if method == "GET" else SIGNED
        return urllib3.request(method, url, body=body, headers=headers, retries=False, timeout=SECONDS)

    def names(self) -> set[str]:
        answer = self.request("GET")
        assert answer.status == 200, answer.data
        return set(re.findall(r"<Key>(.*?)</Key>", answer.data.decode("utf-8")))


@contextmanager
def serving(log: Path, port: int = 0) -> Iterator[ObjectStore]:
    """Start a server on loopback; what it says goes to ``log``."""
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [PROGRAM, "-H", "127.0.0.1", "-p", str(port)], stdout=said, stderr=subprocess.STDOUT
        )
    try:
        pattern = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
        found = until(lambda: pattern.search(log.read_text("utf-8")), "the object store is ready", 60)
        store = ObjectStore(found.group(1), process)
        assert store.request("PUT").status == 200
        assert store.request("PUT", "?policy", json.dumps(READABLE).encode("ascii")).status in (200, 204)
        yield store
    finally:
        process.terminate()
        process.wait(SECONDS)
