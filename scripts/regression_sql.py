"""Replays PostgreSQL's regression SQL and asks the server which statements write.

First psql runs the scripts of src/test/regress/sql in schedule order, and the server logs what
comes. Then each logged statement is executed twice in a second database: in a savepoint or a
transaction that is read-only, where the server refuses what writes (25006), and for good. Prints
one JSON object a statement: {"sql", "standard_conforming_strings", "server"} with "server" one of
"write", "done", or the SQLSTATE of the error.

Usage: regression_sql.py SOURCE OUT, where SOURCE is an unpacked postgresql-*.tar.bz2.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import psycopg
from psycopg import pq

SETTINGS = {
    "fsync": "off",
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_statement": "all",
    "log_min_messages": "log",
    "log_min_error_statement": "fatal",
    "log_directory": "log",
    "log_filename": "regress",
    "log_rotation_size": "0",
    "max_prepared_transactions": "4",
    "wal_level": "logical",
    "wal_sender_timeout": "0",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}


def program(name: str) -> str:
    newest = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    return str(newest / name)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server(contextlib.ExitStack):
    def __enter__(self):
        super().__enter__()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-regression-"))
        self.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.as_user = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root.
            self.as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.directory, "postgres")
        data = self.directory / "data"
        self.run(program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync",
                 "--encoding=UTF8", "--locale=C")
        self.port = free_port()
        options = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [program("postgres"), "-D", data, f"--port={self.port}", *options]
        process = subprocess.Popen(
            list(map(str, command)), cwd=self.directory, stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, **self.as_user)
        self.callback(process.wait)
        # A fast shutdown: it does not wait for sessions.
        self.callback(process.send_signal, signal.SIGINT)
        self.run(program("pg_isready"), "-h", "127.0.0.1", "-p", self.port, "-t", "30", retry=60)
        self.log = data / "log" / "regress.json"
        return self

    def run(self, *command, retry=0, **options):
        while True:
            result = subprocess.run(list(map(str, command)), cwd=self.directory,
                                    stdout=subprocess.DEVNULL, **self.as_user, **options)
            if result.returncode == 0 or retry == 0:
                result.check_returncode()
                return
            retry -= 1
            subprocess.run(["sleep", "0.5"], check=True)

    def database(self, name: str):
        self.run(program("psql"), "-X", "-q", "-h", "127.0.0.1", "-p", self.port, "-U", "postgres",
                 "-c", f'CREATE DATABASE "{name}" TEMPLATE template0',
                 "-c", f"ALTER DATABASE {name} SET lc_messages TO 'C'",
                 "-c", f"ALTER DATABASE {name} SET timezone_abbreviations TO 'Default'")


def scripts(source: pathlib.Path) -> list[pathlib.Path]:
    folder = source / "src/test/regress"
    names = [name for line in (folder / "parallel_schedule").read_text().splitlines()
             if line.startswith("test:") for name in line.removeprefix("test:").split()]
    # infinite_recurse only exhausts the server's stack.
    return [folder / "sql" / f"{name}.sql" for name in names if name != "infinite_recurse"]


def logged(server: Server, source: pathlib.Path) -> list[list[str]]:
    """The statements that psql sends for the scripts, a list for each session."""
    results = server.directory / "results"
    results.mkdir(mode=0o777)
    results.chmod(0o777)
    environment = os.environ | {
        "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres",
        "PGDATABASE": "regression", "PGTZ": "PST8PDT", "PGDATESTYLE": "Postgres, MDY",
        "PG_ABS_SRCDIR": str(source / "src/test/regress"), "PG_ABS_BUILDDIR": str(server.directory),
        "PG_LIBDIR": "/nowhere", "PG_DLSUFFIX": ".so",
    }
    for script in scripts(source):
        with script.open("rb") as text:
            subprocess.run([program("psql"), "-X", "-a", "-q"], stdin=text, env=environment,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600,
                           cwd=server.directory)
    sessions: dict[str, list[str]] = {}
    for line in server.log.read_text(errors="surrogateescape").splitlines():
        entry = json.loads(line)
        message = entry.get("message", "")
        if entry.get("dbname") == "regression" and message.startswith("statement: "):
            sessions.setdefault(entry["session_id"], []).append(message.removeprefix("statement: "))
    return list(sessions.values())


class Session:
    """One connection, as close to the protocol as libpq lets."""

    def __init__(self, server: Server, database: str):
        self.connection = pq.PGconn.connect(
            f"host=127.0.0.1 port={server.port} user=postgres dbname={database} "
            "options='-c statement_timeout=20s -c lock_timeout=5s'".encode())

    def usable(self) -> bool:
        return self.connection.status == pq.ConnStatus.OK

    def parameter(self, name: str) -> str:
        return (self.connection.parameter_status(name.encode()) or b"").decode()

    def execute(self, sql: str) -> str | None:
        """The SQLSTATE of the last error, if there is one."""
        state = None
        self.connection.send_query(sql.encode(errors="surrogateescape"))
        while (result := self.connection.get_result()) is not None:
            match result.status:
                case pq.ExecStatus.COPY_IN:
                    self.connection.put_copy_end()
                case pq.ExecStatus.COPY_OUT:
                    while self.connection.get_copy_data(0)[0] > 0:
                        pass
                case pq.ExecStatus.COPY_BOTH:
                    self.connection.finish()
                    return "copy-both"
                case pq.ExecStatus.FATAL_ERROR:
                    code = result.error_field(pq.DiagnosticField.SQLSTATE)
                    state = (code or b"closed").decode()
            if not self.usable():
                return "closed"
        return state

    def writes(self, sql: str) -> bool:
        """Whether the server refuses the statement where it may only read."""
        match self.connection.transaction_status:
            case pq.TransactionStatus.IDLE:
                if self.execute("BEGIN READ ONLY") is not None:
                    return False
                answer = self.execute(sql)
                self.execute("ROLLBACK")
            case pq.TransactionStatus.INTRANS:
                self.execute("SAVEPOINT asked")
                self.execute("SET LOCAL transaction_read_only = on")
                answer = self.execute(sql)
                self.execute("ROLLBACK TO asked")
                self.execute("RELEASE asked")
            case _:
                return False
        return answer == "25006"


# What ends or marks a transaction would end the one that asks.
NOT_ASKED = ("abort", "begin", "commit", "end", "prepare transaction", "release", "rollback",
             "savepoint", "start transaction")


def main() -> None:
    source, out = map(pathlib.Path, sys.argv[1:])
    source = source.resolve()
    with Server() as server, out.open("w") as lines:
        server.database("regression")
        server.database("replay")
        for statements in logged(server, source):
            session = Session(server, "replay")
            for sql in statements:
                if not session.usable():
                    break
                strings = session.parameter("standard_conforming_strings") == "on"
                word = sql.lstrip().lower()
                asked = not word.startswith(NOT_ASKED) and "pg_sleep" not in word
                writes = asked and session.writes(sql)
                if not session.usable():
                    break
                state = session.execute(sql)
                answer = "write" if writes else state or "done"
                lines.write(json.dumps({
                    "sql": sql.encode(errors="surrogateescape").decode(errors="replace"),
                    "standard_conforming_strings": strings, "server": answer}) + "\n")


main()
