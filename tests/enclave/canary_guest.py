"""The real server in a process of its own, on a simulated machine, with mistakes planted where prompts pass.

    python -m tests.enclave.canary_guest DESCRIPTOR MODEL DIGEST FOLDER

A prompt that holds ``fail here`` makes the code raise with the prompt in its message, ``fail in the model`` the model,
``warn`` makes it warn and print, ``connect`` open a connection, and ``die`` aborts the process that serves.
"""

import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from enclave import api, serve
from enclave.front import carried
from enclave.logs import forbid_dumps, start_logging
from tests.enclave.test_boot_check import machine
from tests.fakes.machine import hardware


def planted(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Break where a prompt has just been opened, in ways that would show it."""

    def broken(body: bytes) -> Any:
        text = body.decode("utf-8", "replace")
        if "fail here" in text:
            raise RuntimeError(text)
        if "warn" in text:
            warnings.warn(text, stacklevel=1)
            print(text)
            print(text, file=sys.stderr)
            thread = threading.Thread(target=lambda: [].index(text))  # type: ignore[arg-type]  # it raises with it
            thread.start()
            thread.join()
        if "connect" in text:
            # Nobody listens there; where the kernel lets it try at all it is refused by the other end.
            socket.create_connection(("127.0.0.1", 9))
        if "die" in text:
            os.abort()
        return parse(body)

    return broken


def load(*given: Any) -> Any:
    model = LOAD(*given)
    encode = model.encode

    def broken(messages: Any) -> Any:
        if any("fail in the model" in message.content for message in messages):
            raise ValueError(repr(messages))
        return encode(messages)

    model.encode = broken
    return model


LOAD = serve.load_model


def main(descriptor: int, model: Path, digest: str, folder: Path) -> None:
    made, _ = machine(hardware(folder), weights_sha256=digest)
    setup = replace(made.setup, rules=replace(made.setup.rules, plaintext=True))
    api.parse_chat = planted(api.parse_chat)
    serve.load_model = load
    forbid_dumps()
    start_logging()
    # Through the carrier, as behind a vsock: what leaves the process leaves it there.
    with carried(socket.socket(fileno=descriptor)) as reached:
        serve.serve(serve.Options(setup, model, "cpu"), reached)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
