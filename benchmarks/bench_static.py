"""Static reads through nginx with ``deploy/nginx.conf``, beside a bare nginx that serves the same files.

Run: ``.venv/bin/python benchmarks/bench_static.py [SECONDS] [CONNECTIONS]`` (default 3 and 64 a run); needs
nginx and wrk. The two take turns three times over, on loopback, with one worker process each; the median of
each counts.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fakes import nginx
from tests.fakes.processes import until

TURNS = 3
FILES = {"checkpoint": 600, "tile/0/000": 8192, "api/v1/bundles/chat/" + "ab" * 32: 6000}

BARE = """
{user}worker_processes 1;
pid {folder}/bare.pid;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 10000;
    client_body_temp_path {folder}/bare_body;
    proxy_temp_path {folder}/bare_proxy;
    fastcgi_temp_path {folder}/bare_fastcgi;
    uwsgi_temp_path {folder}/bare_uwsgi;
    scgi_temp_path {folder}/bare_scgi;
    server {{ listen 127.0.0.1:{port}; root {public}; }}
}}
"""


@contextmanager
def bare(folder: Path, public: Path) -> Iterator[str]:
    """Start nginx with the least configuration that serves files."""
    port, path, program = nginx.free_port(), folder / "bare.conf", nginx.program()
    assert program is not None
    user = "user root;\n" if folder.owner() == "root" else ""
    path.write_text(BARE.format(user=user, folder=folder, port=port, public=public), "utf-8")
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(path), "-e", "stderr", "-g", "daemon off;"]
    )
    try:
        until(lambda: _listens(port), "the bare nginx listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def rate(url: str, seconds: int, connections: int) -> float:
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", url]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=seconds + 30)
    assert "Non-2xx" not in done.stdout, done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("Requests/sec:"))
    return float(line.split()[1])


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    with tempfile.TemporaryDirectory() as name:
        folder, public = Path(name), Path(name) / "public"
        for path, length in FILES.items():
            (public / path).parent.mkdir(parents=True, exist_ok=True)
            (public / path).write_bytes(os.urandom(length))
        with bare(folder, public) as plain, nginx.running(folder, public, "127.0.0.1:1") as ours:
            for path in FILES:
                runs = [
                    [rate(f"{address}/{path}", seconds, connections) for address in (ours, plain)]
                    for _ in range(TURNS)
                ]
                found, other = map(statistics.median, zip(*runs, strict=True))
                print(
                    f"{path[:24]:<26} {found:8,.0f}/s   {found / other:.2f} x bare nginx ({other:,.0f}/s)   "
                    f"bar 0.80"
                )
    print(f"{connections} connections, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
