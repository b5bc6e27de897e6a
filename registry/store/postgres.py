"""PostgreSQL in a mode that keeps what it acknowledged, and the sequencer's leadership in a session of it.

Settings are read back on each new connection. A standby that may lack acknowledged entries (asynchronous)
is refused before a sequencer leads, and ends its lead when one is attached: promoting it would lose them.
Whoever leads holds an advisory lock in a session of its own; the server ends that session when nothing is
heard of it, so that a stopped machine does not lead for ever. The lock only decides who works; the epoch in
the head row decides what is committed.
"""

import ipaddress
import threading
import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from quotary.errors import Usage
from registry.errors import LeadershipLost, UnsafeDatabase
from registry.store.faults import translated

# A stopped process must not hold a row for longer than another one waits for it.
OPTIONS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "8s",
    "timezone": "UTC",
}
DURABLE = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply"),
    # Tried again, a flush that failed once may succeed without the data.
    "data_sync_retry": ("off",),
}
POOL_SIZE = 8
POOL_SECONDS = 10.0
CONNECT_SECONDS = 5

# Any number that no other program on the same database takes: "quot" in ASCII.
LEADER = 0x71756F74
BEAT_SECONDS = 2.0
SILENT_SECONDS = 6.0


def open_postgresql(url: URL, schema: str | None = None) -> Engine:
    """Make an engine with bounded waits and a bounded pool; ``schema`` is one beside the usual one."""
    check_address(url)
    options = OPTIONS | ({"search_path": schema} if schema else {})
    arguments = {
        "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        "connect_timeout": CONNECT_SECONDS,
        "tcp_user_timeout": int(SILENT_SECONDS * 1000),
        "application_name": "quotary",
    }
    engine = create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
    )
    event.listen(engine, "connect", _check_settings)
    return engine


def check_address(url: URL) -> None:
    """Refuse a password in the URL, no host, and a network connection that TLS does not verify."""
    if url.password is not None:
        raise Usage(
            "the database's URL carries a password",
            next_command="put it into a file of mode 0600 and name that: ...?passfile=FILE",
        )
    named = url.query.get("host", ()) if url.host is None else url.host
    hosts = [host for text in ([named] if isinstance(named, str) else named) for host in text.split(",")]
    if not hosts:
        raise Usage("the database's URL names no host", next_command="...?host=/var/run/postgresql")
    if all(map(_is_here, hosts)) or url.query.get("sslmode") == "verify-full":
        return
    raise Usage(
        f"the connection to {', '.join(hosts)} would not be verified",
        next_command="...?sslmode=verify-full&sslrootcert=FILE",
    )


def check_standbys(connection: Connection) -> None:
    """Refuse a server with a standby that may lack what was acknowledged, or whose standbys are not shown."""
    query = text("SELECT application_name, state, sync_state FROM pg_stat_replication")
    for name, state, how in connection.execute(query):
        if how is None:
            raise UnsafeDatabase(
                "this role may not see whether the server's standbys are synchronous",
                next_command="GRANT pg_read_all_stats TO the sequencer's role",
            )
        if how == "async" and state != "backup":
            raise UnsafeDatabase(
                f"standby {name or 'without a name'} is asynchronous, wanted a synchronous one",
                next_command="set synchronous_standby_names on the server, and reload it",
            )


class SessionLease:
    """Leadership while one session lives, and no standby may lack entries; ``check`` says when it is over."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stop = threading.Event()
        self._why = ""
        self._unsafe: UnsafeDatabase | None = None
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name="leadership", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ``LeadershipLost`` where the session is gone, or was silent for too long.

        And ``UnsafeDatabase`` where a standby was attached that may lack entries.
        """
        if self._unsafe is not None:
            raise self._unsafe
        silent = time.monotonic() - self._heard
        why = self._why or (f"silent for {silent:.0f} s" if silent > SILENT_SECONDS else "")
        if why:
            raise LeadershipLost(f"the session that held the sequencer's lock is over: {why}")

    def close(self) -> None:
        """Let another one lead."""
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            started = time.monotonic()
            try:
                # Were the session replaced behind our back, the new one would not hold the lock.
                if not _holds_lock(self._connection):
                    self._why = "another session answers"
                    return
                check_standbys(self._connection)
            except UnsafeDatabase as error:
                self._unsafe = error
                return
            except SQLAlchemyError as error:
                self._why = str(error).splitlines()[0]
                return
            self._heard = started


def lead(engine: Engine) -> SessionLease | None:
    """Become the one that leads; None where another session does."""
    with translated():
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            check_standbys(connection)
            # Kept out of the pool: a pooled session would go on holding the lock.
            connection.detach()
            connection.execute(text(f"SET idle_session_timeout = '{SILENT_SECONDS:g}s'"))
            if connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LEADER}):
                return SessionLease(connection)
        except BaseException:
            connection.close()
            raise
        connection.close()
    return None


def _holds_lock(connection: Connection) -> bool:
    query = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = :key "
        "AND objsubid = 1 AND pid = pg_backend_pid() AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return bool(connection.scalar(text(query), {"key": LEADER}))


def _check_settings(connection: Any, _record: object) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(DURABLE),))
            found = dict(cursor.fetchall())
        connection.rollback()
        for name, wanted in DURABLE.items():
            if found.get(name) not in wanted:
                raise UnsafeDatabase(f"PostgreSQL has {name} {found.get(name)}, wanted {' or '.join(wanted)}")
    except BaseException:
        # The pool does not know this connection yet.
        connection.close()
        raise


def _is_here(host: str) -> bool:
    """A unix socket or a loopback address; a port may follow in a list of hosts."""
    if host.startswith("/"):
        return True
    name = host.strip("[]") if host.count(":") != 1 else host.split(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
