"""An S3-compatible object store: the one module that speaks to one, by obstore.

Where it lies and under which credentials is obstore's matter: it reads the environment of the process
(``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, a token file or the
machine's own identity), its time limits too (30 s a request, 5 s to connect). The store must honour
``If-None-Match: *``, so that nothing written once is replaced.
"""

from datetime import timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from quotary.errors import CannotTell, Refused, Usage

SCHEME = "s3://"
TOGETHER = timedelta(seconds=60)
RETRIES = 3
# obstore raises Python's own errors for what Python has an error for.
FAILURES = (BaseError, OSError)


class Bucket:
    """One prefix of one bucket; names are relative to it."""

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEME) or not url.removeprefix(SCHEME).strip("/"):
            raise Usage(f"an object store is s3://BUCKET/PREFIX, found {url}")
        if "@" in url or "?" in url:
            raise Usage("the address of an object store carries nothing but bucket and prefix")
        self._url = url.rstrip("/")
        try:
            self._store = S3Store.from_url(
                self._url,
                retry_config={"max_retries": RETRIES, "retry_timeout": TOGETHER},
            )
        except FAILURES as error:
            raise CannotTell(f"{self._url}: {_reason(error)}") from error

    def get(self, name: str) -> bytes | None:
        """Give an object's bytes; None where there is none."""
        try:
            return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None
        except FAILURES as error:
            raise self._failed(name, error) from error

    def create(self, name: str, data: bytes, content_type: str, caching: str) -> None:
        """Write an object that nobody has written; raise ``Refused`` where it exists with other bytes."""
        try:
            self._put(name, data, content_type, caching, new=True)
        except AlreadyExistsError:
            if self.get(name) != data:
                raise Refused("object", f"{self._url}/{name} with other bytes", "ours, or none") from None

    def replace(self, name: str, data: bytes, content_type: str, caching: str) -> None:
        """Write an object, whatever stands there."""
        self._put(name, data, content_type, caching, new=False)

    def remove_under(self, name: str) -> None:
        """Remove the objects in a folder."""
        try:
            for some in obstore.list(self._store, name):
                obstore.delete(self._store, [found["path"] for found in some])
        except FAILURES as error:
            raise self._failed(name, error) from error

    def _put(self, name: str, data: bytes, content_type: str, caching: str, *, new: bool) -> None:
        try:
            obstore.put(
                self._store,
                name,
                data,
                attributes={"Content-Type": content_type, "Cache-Control": caching},
                mode="create" if new else "overwrite",
                use_multipart=False,
            )
        except AlreadyExistsError:
            raise
        except FAILURES as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> CannotTell:
        return CannotTell(f"{self._url}/{name}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:300]
