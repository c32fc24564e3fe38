"""psycopg 3 and COPY: both ways, in text and binary, with failures from either side."""

import psycopg

from transcript import digest, section, show, show_error

SCHEMA = "clients_psycopg_copy"
BLOCK = 1 << 20


def main() -> None:
    with psycopg.connect(autocommit=True) as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(f"drop schema if exists {SCHEMA} cascade")
        connection.execute(f"create schema {SCHEMA}")
        connection.execute(f"set search_path = {SCHEMA}")
        connection.execute("create table t (i int, t text, b bytea)")
        rows(connection)
        blocks(connection)
        failures(connection)
        through_two_connections(connection)
        connection.execute(f"drop schema {SCHEMA} cascade")


def rows(connection: psycopg.Connection) -> None:
    section("row by row")
    for copy_format in ("text", "binary"):
        with connection.cursor() as cursor:
            with cursor.copy(f"copy t from stdin (format {copy_format})") as copy:
                copy.set_types(["int4", "text", "bytea"])
                for n in range(2000):
                    copy.write_row((n, f"ünï\t\n\\{n}" if n % 7 else None, bytes([n % 256]) * 10))
            show(f"{copy_format} in", (cursor.rowcount, cursor.statusmessage))
            ordered = f"copy (select * from t order by i, t) to stdout (format {copy_format})"
            with cursor.copy(ordered) as copy:
                copy.set_types(["int4", "text", "bytea"])
                show(f"{copy_format} out", digest(repr(row).encode() for row in copy.rows()))
    show("stored", connection.execute("select count(*), sum(i), sum(length(t)) from t").fetchone())


def blocks(connection: psycopg.Connection) -> None:
    section("large blocks")
    connection.execute("truncate t")
    line = b"7\t" + b"x" * 1000 + b"\t\\\\x00\n"
    with connection.cursor() as cursor:
        with cursor.copy("copy t from stdin") as copy:
            for _ in range(20):
                copy.write(line * (BLOCK // len(line)))
        show("in", cursor.rowcount)
        for copy_format in ("text", "csv", "binary"):
            with cursor.copy(f"copy t to stdout (format {copy_format})") as copy:
                show(f"{copy_format} out", digest(copy))
        with cursor.copy("copy (select 1 where false) to stdout") as copy:
            show("nothing out", digest(copy))
        with cursor.copy("copy t from stdin") as copy:
            pass
        show("nothing in", cursor.rowcount)


def failures(connection: psycopg.Connection) -> None:
    section("failures")
    try:
        with connection.cursor().copy("copy t (i) from stdin") as copy:
            copy.write(b"1\n2\nthree\n4\n")
    except psycopg.Error as error:
        show_error("refused by the server", error)
    try:
        with connection.cursor().copy("copy t (i) from stdin") as copy:
            copy.write(b"1\n")
            raise LookupError("the program changed its mind")
    except LookupError as error:
        show("given up by the client", str(error))
    try:
        with connection.cursor().copy("copy t (i) from stdin") as copy:
            copy.write(b"not a number\n")
            for _ in range(200):
                copy.write(b"1\n" * 50_000)
    except psycopg.Error as error:
        show_error("refused while the client goes on writing", error)
    try:
        with connection.cursor().copy(
            "copy (select 10 / (5000 - g) from generate_series(1, 10000) g) to stdout"
        ) as copy:
            for _ in copy:
                pass
    except psycopg.Error as error:
        show_error("in the middle of the output", error)
    try:
        with connection.cursor().copy("copy (select generate_series(1, 1000000000)) to stdout") as copy:
            copy.read()
            connection.cancel_safe()
            for _ in copy:
                pass
    except psycopg.Error as error:
        show_error("cancelled in the middle", error)
    for statement in ("copy nowhere from stdin", "copy nowhere to stdout"):
        try:
            with connection.cursor().copy(statement):
                pass
        except psycopg.Error as error:
            show_error(statement, error)
    show("still usable", connection.execute("select count(*) from t where i = 1").fetchone())


def through_two_connections(connection: psycopg.Connection) -> None:
    section("out of one connection into another")
    connection.execute("create table copied (like t)")
    with psycopg.connect(autocommit=True) as other:
        with connection.cursor().copy("copy t to stdout (format binary)") as source:
            with other.cursor().copy(f"copy {SCHEMA}.copied from stdin (format binary)") as sink:
                for block in source:
                    sink.write(block)
    show("copied", connection.execute("select count(*), sum(length(t)) from copied").fetchone())


main()
