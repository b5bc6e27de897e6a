"""A real nginx with the configuration of ``deploy/``, on loopback."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.processes import until

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"


def program() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def configuration(
    folder: Path,
    public: Path,
    upstream: str,
    port: int,
    connections: int,
    host: str = "127.0.0.1",
    posts: int = 128,
) -> str:
    """The shipped file with this machine's paths; each line that is replaced must be there."""
    text = CONFIGURATION.read_text("utf-8")
    temporary = "".join(
        f"    {name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    replaced = {
        "user www-data;\n": "user root;\n" if folder.owner() == "root" else "",
        "worker_processes auto;": "worker_processes 1;",
        "worker_rlimit_nofile 65536;": "",
        "worker_connections 16384;": f"worker_connections {connections};",
        "pid /run/nginx.pid;": f"pid {folder}/nginx.pid;",
        "error_log /var/log/nginx/error.log warn;": "error_log stderr warn;",
        "http {\n": "http {\n" + temporary,
        "server 127.0.0.1:8480 max_fails=0;": f"server {upstream} max_fails=0;",
        "server 127.0.0.1:8480 max_fails=0 max_conns=128;": f"server {upstream} max_fails=0 max_conns={posts};",
        "listen 443 ssl http2;": f"listen {host}:{port};",
        "ssl_certificate /etc/ssl/log.example.org.pem;": "",
        "ssl_certificate_key /etc/ssl/private/log.example.org.key;": "",
        "root /srv/quotary;": f"root {public};",
    }
    for old, new in replaced.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def running(
    folder: Path,
    public: Path,
    upstream: str,
    connections: int = 2048,
    host: str = "127.0.0.1",
    posts: int = 128,
) -> Iterator[str]:
    """Start nginx, and give its address; ``posts`` is how many it hands on at once."""
    port, path, name = free_port(), folder / "nginx.conf", program()
    assert name is not None
    path.write_text(configuration(folder, public, upstream, port, connections, host, posts), "utf-8")
    with open(folder / "nginx.stderr", "wb") as errors:
        process = subprocess.Popen(
            [name, "-p", str(folder), "-c", str(path), "-e", "stderr", "-g", "daemon off;"], stderr=errors
        )
    try:
        until(lambda: _answers(host, port, process, folder / "nginx.stderr"), "nginx listens")
        yield f"http://{host}:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _answers(host: str, port: int, process: subprocess.Popen[bytes], errors: Path) -> bool:
    assert process.poll() is None, errors.read_text("utf-8")
    with socket.socket() as found:
        return found.connect_ex((host, port)) == 0
