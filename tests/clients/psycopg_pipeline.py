"""psycopg 3 in pipeline mode: many messages before the first answer, errors in the middle."""

import logging

import psycopg
from psycopg import pq

from transcript import digest, section, show, show_error

SCHEMA = "clients_psycopg_pipeline"
# What psycopg warns of depends on how much of the answers is there already.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


def main() -> None:
    with psycopg.connect(autocommit=True) as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(f"drop schema if exists {SCHEMA} cascade")
        connection.execute(f"create schema {SCHEMA}")
        connection.execute(f"create table {SCHEMA}.t (i int primary key, t text)")
        many(connection)
        errors(connection)
        both_sides_write(connection)
        raw_protocol(connection)
        connection.execute(f"drop schema {SCHEMA} cascade")


def many(connection: psycopg.Connection) -> None:
    section("many statements in one pipeline")
    with connection.pipeline(), connection.cursor() as cursor:
        cursor.executemany(
            f"insert into {SCHEMA}.t values (%s, %s) returning i",
            [(n, "v" * (n % 100)) for n in range(2000)],
            returning=True,
        )
        total = 0
        while True:
            total += cursor.fetchone()[0]
            if not cursor.nextset():
                break
        show("returned", total)
    with connection.pipeline() as pipeline:
        cursors = [connection.execute("select %s::int", (n,)) for n in range(50)]
        pipeline.sync()
        show("each", sum(c.fetchone()[0] for c in cursors))


def errors(connection: psycopg.Connection) -> None:
    section("an error in a pipeline skips what follows it, up to the sync")
    try:
        with connection.pipeline() as pipeline:
            connection.execute(f"insert into {SCHEMA}.t values (10001)")
            pipeline.sync()
            connection.execute(f"insert into {SCHEMA}.t values (10002)")
            failing = connection.execute("select 1 / %s", (0,))
            skipped = connection.execute(f"insert into {SCHEMA}.t values (10003)")
            pipeline.sync()
            connection.execute(f"insert into {SCHEMA}.t values (10004)")
            for name, cursor in (("failing", failing), ("skipped", skipped)):
                try:
                    cursor.fetchone()
                except psycopg.Error as error:
                    show_error(name, error)
    except psycopg.Error as error:
        show_error("the pipeline", error)
    kept = connection.execute(f"select i from {SCHEMA}.t where i > 10000 order by i").fetchall()
    show("kept", kept)
    try:
        with connection.transaction(), connection.pipeline():
            connection.execute(f"insert into {SCHEMA}.t values (20001)")
            connection.execute(f"insert into {SCHEMA}.t values (20001)")
    except psycopg.Error as error:
        show_error("in a transaction", error)
    show("status", connection.info.transaction_status.name)
    kept = connection.execute(f"select i from {SCHEMA}.t where i > 20000").fetchall()
    show("kept", kept)


def both_sides_write(connection: psycopg.Connection) -> None:
    section("large parameters up while large results come down")
    with connection.pipeline():
        cursors = [
            connection.execute("select repeat(left(%s, 1), 3000000)", (chr(97 + n) * 3_000_000,))
            for n in range(20)
        ]
        show("all", digest(c.fetchone()[0].encode() for c in cursors))


def raw_protocol(connection: psycopg.Connection) -> None:
    section("portals, descriptions and flushes, by libpq's own calls")
    raw = connection.pgconn
    raw.nonblocking = 0
    raw.enter_pipeline_mode()
    raw.send_prepare(b"named", b"select $1::int + $2::int")
    raw.send_describe_prepared(b"named")
    raw.send_query_prepared(b"named", [b"1", b"2"])
    raw.send_query_prepared(b"named", [b"x", b"2"])
    raw.send_query_prepared(b"named", [b"3", b"4"])
    raw.pipeline_sync()
    raw.send_query_prepared(b"named", [b"\0\0\0\5", b"6"], param_formats=[1, 0], result_format=1)
    raw.send_describe_portal(b"")
    raw.send_flush_request()
    raw.pipeline_sync()
    raw.send_query_params(b"", None)
    raw.send_query_params(b"not sql", None)
    raw.pipeline_sync()
    raw.pipeline_sync()
    syncs = 0
    while syncs < 4:
        result = raw.get_result()
        if result is None:
            continue
        status = pq.ExecStatus(result.status)
        rows = [
            [result.get_value(row, column) for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]
        types = [result.param_type(n) for n in range(result.nparams)]
        said = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
        show(status.name, (rows, result.nfields, types, said, result.command_status))
        syncs += status == pq.ExecStatus.PIPELINE_SYNC
    raw.exit_pipeline_mode()
    raw.nonblocking = 1


main()
