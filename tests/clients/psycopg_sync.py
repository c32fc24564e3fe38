"""psycopg 3, synchronous: what most Python programs do. Connects as libpq's environment says."""

import threading
from datetime import datetime, timezone
from decimal import Decimal

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from transcript import digest, section, show, show_error

SCHEMA = "clients_psycopg_sync"


def main() -> None:
    with psycopg.connect(autocommit=True) as connection:
        connection.add_notice_handler(
            lambda notice: show("notice", (notice.severity, notice.message_primary))
        )
        connection.execute("set client_min_messages = warning")
        connection.execute(f"drop schema if exists {SCHEMA} cascade")
        connection.execute("reset client_min_messages")
        connection.execute(f"create schema {SCHEMA}")
        connection.execute(f"set search_path = {SCHEMA}")
        values(connection)
        results(connection)
        errors(connection)
        transactions(connection)
        prepared(connection)
        server_side_cursors(connection)
        parameter_status(connection)
        notifications(connection)
        large_objects(connection)
        cancelling(connection)
        connection.execute(f"drop schema {SCHEMA} cascade")
    several_connections()


def values(connection: psycopg.Connection) -> None:
    section("values in both formats")
    connection.execute(
        "create table v (i int8, n numeric, t text, b bytea, j jsonb, a int[], ts timestamptz)"
    )
    row = (
        2**62,
        Decimal("12345678901234567890.0123456789"),
        "ünï\n漢字🙂",
        bytes(range(256)),
        Jsonb({"k": [1, None, "x"]}),
        [1, None, 3],
        datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc),
    )
    nothing = (None,) * len(row)
    with connection.cursor() as cursor:
        cursor.executemany("insert into v values (%s, %s, %s, %s, %s, %s, %s)", [row, nothing])
        show("inserted", cursor.rowcount)
    for binary in (False, True):
        with connection.cursor(binary=binary, row_factory=dict_row) as cursor:
            cursor.execute("select * from v order by i")
            show(f"binary={binary}", cursor.fetchall())
            cursor.execute("select %b::int8 + %t::int8, %b::bytea", (1, 2, b"\x00\xff"))
            show("mixed parameters", cursor.fetchall())
    with connection.cursor() as cursor:
        cursor.execute("insert into v (t) values ('r') returning t, i is null as empty")
        show("returning", (cursor.fetchone(), [c.name for c in cursor.description]))


def results(connection: psycopg.Connection) -> None:
    section("results of many sizes")
    for count in (0, 1, 100_000):
        rows = connection.execute(
            "select g, repeat(chr(97 + g %% 26), g %% 100) from generate_series(1, %s) g", (count,)
        )
        show(f"{count} rows", digest(f"{g}{text}".encode() for g, text in rows))
    (big,) = connection.execute("select repeat('x', 30000000)").fetchone()
    show("a large value", digest([big.encode()]))
    (length,) = connection.execute("select length(%s)", ("y" * 30_000_000,)).fetchone()
    show("a large parameter", length)
    wide = ", ".join(f"{n} as c{n}" for n in range(1600))
    show("1600 columns", sum(connection.execute(f"select {wide}").fetchone()))
    show("no columns", connection.execute("select").fetchall())
    cursor = connection.execute("")
    show("empty query", cursor.statusmessage)
    cursor = connection.execute("select 1; select 'two'; create table later (i int); select 3")
    while True:
        show("of several", (cursor.statusmessage, cursor.fetchall() if cursor.description else None))
        if not cursor.nextset():
            break


def errors(connection: psycopg.Connection) -> None:
    section("errors and notices")
    for statement in (
        "select 1 / 0",
        "select nothing",
        "selec",
        "insert into later values ('x')",
        "select 1; select 1 / 0; select 2",
        "do $$ begin raise exception 'raised' using errcode = 'P0042', hint = 'a hint'; end $$",
        "do $$ begin raise exception using message = repeat('long ', 20000); end $$",
    ):
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            show("message", digest([str(error).encode()]))
            if len(str(error)) < 1000:
                show_error(statement, error)
    try:
        connection.execute("select %s::int", ("not a number",))
    except psycopg.Error as error:
        show_error("bad parameter", error)
    connection.execute("do $$ begin for i in 1..3 loop raise notice 'notice %', i; end loop; end $$")
    show("still usable", connection.execute("select 'yes'").fetchone())


def transactions(connection: psycopg.Connection) -> None:
    section("transactions and savepoints")
    connection.execute("create table t (i int primary key deferrable initially deferred)")
    with connection.transaction():
        connection.execute("insert into t values (1)")
        try:
            with connection.transaction():
                connection.execute("insert into t values (2)")
                raise LookupError
        except LookupError:
            pass
        show("status", connection.info.transaction_status.name)
    try:
        with connection.transaction():
            connection.execute("insert into t values (3), (3)")
    except psycopg.Error as error:
        show_error("at commit", error)
    connection.autocommit = False
    try:
        connection.execute("select 1 / 0")
    except psycopg.Error:
        show("status", connection.info.transaction_status.name)
    try:
        connection.execute("select 1")
    except psycopg.Error as error:
        show_error("in a failed transaction", error)
    connection.rollback()
    connection.autocommit = True
    show("kept", connection.execute("select i from t order by i").fetchall())


def prepared(connection: psycopg.Connection) -> None:
    section("prepared statements")
    for turn in range(12):
        (n,) = connection.execute("select %s::int * 2", (turn,), prepare=True).fetchone()
        show("again", n)
    show("named on the server", connection.execute(
        "select count(*) from pg_prepared_statements"
    ).fetchone())
    connection.execute("create table shape (a int)")
    show("before", connection.execute("select * from shape", prepare=True).fetchall())
    connection.execute("alter table shape add b int")
    try:
        connection.execute("select * from shape", prepare=True)
    except psycopg.Error as error:
        show_error("changed shape", error)
    connection.execute("deallocate all")
    show("after", connection.execute("select * from shape", prepare=True).fetchall())


def server_side_cursors(connection: psycopg.Connection) -> None:
    section("server-side cursors")
    with connection.transaction():
        with connection.cursor(name="named", scrollable=True, binary=True) as cursor:
            cursor.execute("select g from generate_series(1, 50000) g")
            show("first", cursor.fetchmany(3))
            cursor.scroll(40_000)
            show("further", cursor.fetchone())
            cursor.scroll(0, mode="absolute")
            cursor.itersize = 999
            show("all", sum(g for (g,) in cursor))
    with connection.cursor(name="held", withhold=True) as cursor:
        cursor.execute("select g from generate_series(1, 10) g")
        show("held", cursor.fetchall())


def parameter_status(connection: psycopg.Connection) -> None:
    section("settings that the server reports")
    for statement, name in (
        ("set time zone 'Asia/Tokyo'", "TimeZone"),
        ("set datestyle = 'SQL, DMY'", "DateStyle"),
        ("set application_name = 'renamed'", "application_name"),
        ("set intervalstyle = 'iso_8601'", "IntervalStyle"),
    ):
        connection.execute(statement)
        show(name, connection.info.parameter_status(name))
    with connection.transaction(force_rollback=True):
        connection.execute("set local time zone 'Europe/Paris'")
        show("inside", connection.info.parameter_status("TimeZone"))
    show("after", connection.info.parameter_status("TimeZone"))
    for name in ("server_version", "server_encoding", "client_encoding", "integer_datetimes"):
        show(name, connection.info.parameter_status(name))
    connection.execute("reset all")
    connection.execute(f"set search_path = {SCHEMA}")


def notifications(connection: psycopg.Connection) -> None:
    section("notifications")
    with psycopg.connect(autocommit=True) as other:
        connection.execute("listen psycopg_sync")
        (pid,) = other.execute("select pg_backend_pid()").fetchone()
        for n in range(3):
            other.execute("select pg_notify('psycopg_sync', %s)", (f"payload {n} " + "z" * 1000 * n,))
        for notify in connection.notifies(timeout=30, stop_after=3):
            told = (notify.channel, digest([notify.payload.encode()]))
            show("heard", (told, notify.pid == pid))
    connection.execute("unlisten *")


def large_objects(connection: psycopg.Connection) -> None:
    section("large objects")
    content = bytes(range(256)) * 8192
    with connection.transaction():
        (oid,) = connection.execute("select lo_from_bytea(0, %b)", (content,)).fetchone()
        (fd,) = connection.execute("select lo_open(%s, 393216)", (oid,)).fetchone()
        read = []
        while chunk := connection.execute(
            "select loread(%s, 100000)", (fd,), binary=True
        ).fetchone()[0]:
            read.append(chunk)
        show("read back", digest(read))
        show("unlinked", connection.execute("select lo_unlink(%s)", (oid,)).fetchone())


def cancelling(connection: psycopg.Connection) -> None:
    section("cancelling")
    # What the server calls its process; the client's own number for it may be another.
    (pid,) = connection.execute("select pg_backend_pid()").fetchone()
    for cancel in (connection.cancel, connection.cancel_safe):
        asked = threading.Thread(target=cancel_once_running, args=(pid, cancel))
        asked.start()
        try:
            connection.execute("select pg_sleep(30)")
            show("cancelled", "no")
        except psycopg.errors.QueryCanceled as error:
            show_error("cancelled", error)
        asked.join()
        show("still usable", connection.execute("select 'yes'").fetchone())


def cancel_once_running(pid: int, cancel) -> None:
    running = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
    with psycopg.connect(autocommit=True) as watcher:
        for _ in range(100_000):
            if watcher.execute(running, (pid,)).fetchone():
                break
    cancel()


def several_connections() -> None:
    section("several connections")
    connections = [psycopg.connect() for _ in range(8)]
    show("pids", len({c.info.backend_pid for c in connections}))
    for connection in connections:
        connection.close()
    with psycopg.connect(options="-c statement_timeout=50 -c search_path=pg_catalog") as connection:
        show("from options", connection.execute("show statement_timeout").fetchone())
        try:
            connection.execute("select pg_sleep(60)")
        except psycopg.Error as error:
            show_error("timed out", error)
    with psycopg.connect(application_name="named at the start") as connection:
        show("application_name", connection.execute("show application_name").fetchone())
    with psycopg.connect(client_encoding="UTF8") as connection:
        show("encoding", connection.info.encoding)
        connection.execute("set idle_in_transaction_session_timeout = 20")
        try:
            list(connection.notifies(timeout=30))
            show("ended by the server", "no")
        except psycopg.OperationalError as error:
            show("ended by the server", type(error).__name__)


main()
