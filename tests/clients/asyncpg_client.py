"""asyncpg: binary formats, named prepared statements, cursors by portal, COPY, cancel on timeout."""

import asyncio
import io
from datetime import datetime, timezone
from decimal import Decimal

import asyncpg

from transcript import digest, section, show, show_error

SCHEMA = "clients_asyncpg"


async def main() -> None:
    connection = await asyncpg.connect(server_settings={"application_name": "clients asyncpg"})
    show("application_name", await connection.fetchval("show application_name"))
    await connection.execute("set client_min_messages = warning")
    await connection.execute(f"drop schema if exists {SCHEMA} cascade; create schema {SCHEMA}")
    await connection.execute(f"set search_path = {SCHEMA}")
    await values(connection)
    await results(connection)
    await errors(connection)
    await prepared(connection)
    await cursors(connection)
    await copying(connection)
    await listening(connection)
    await timing_out(connection)
    await connection.execute(f"drop schema {SCHEMA} cascade")
    await connection.close()
    await pooled()


async def values(connection: asyncpg.Connection) -> None:
    section("values")
    await connection.execute(
        "create type mood as enum ('sad', 'happy');"
        "create type pair as (a int, b text);"
        "create table v (i int8, n numeric, t text, b bytea, j jsonb, a int[], ts timestamptz,"
        " m mood, p pair, r int4range)"
    )
    row = (
        2**62,
        Decimal("12345678901234567890.0123456789"),
        "ünï\n漢字🙂",
        bytes(range(256)),
        '{"k": [1, null]}',
        [1, None, 3],
        datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc),
        "happy",
        (1, "b"),
        asyncpg.Range(1, 10),
    )
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    insert = f"insert into v values ({places})"
    show("inserted", await connection.execute(insert, *row))
    await connection.executemany(insert, [(None,) * len(row)] * 3)
    show("rows", [tuple(r) for r in await connection.fetch("select * from v order by i")])


async def results(connection: asyncpg.Connection) -> None:
    section("results of many sizes")
    query = "select g, repeat(chr(97 + g % 26), g % 100) from generate_series(1, $1::int) g"
    for count in (0, 1, 100_000):
        rows = await connection.fetch(query, count)
        show(f"{count} rows", digest(f"{g}{text}".encode() for g, text in rows))
    show("large", digest([(await connection.fetchval("select repeat('x', 30000000)")).encode()]))
    show("large up", await connection.fetchval("select length($1)", "y" * 30_000_000))
    show("empty", await connection.fetch(""))
    show("several", await connection.execute("select 1; select 2; create table later (i int)"))


async def errors(connection: asyncpg.Connection) -> None:
    section("errors, in transactions and out of them")
    for statement in ("select 1 / 0", "select nothing", "selec", "insert into later values (1/0)"):
        try:
            await connection.fetch(statement)
        except asyncpg.PostgresError as error:
            show_error(statement, error)
    try:
        async with connection.transaction(isolation="serializable"):
            await connection.execute("insert into later values (1)")
            try:
                async with connection.transaction():
                    await connection.execute("insert into later values (2)")
                    await connection.fetch("select 1 / $1::int", 0)
            except asyncpg.PostgresError as error:
                show_error("inner", error)
            show("in transaction", connection.is_in_transaction())
            await connection.execute("insert into later values (3)")
    finally:
        show("kept", [r[0] for r in await connection.fetch("select i from later order by i")])
    notices = []
    connection.add_log_listener(lambda _, notice: notices.append(notice.message))
    await connection.execute("do $$ begin raise warning 'warned'; end $$")
    show("notices", notices)


async def prepared(connection: asyncpg.Connection) -> None:
    section("prepared statements")
    statement = await connection.prepare("select $1::int * i as product from later where i > $2")
    show("parameters", [p.name for p in statement.get_parameters()])
    show("columns", [(a.name, a.type.name) for a in statement.get_attributes()])
    for n in range(5):
        show("again", [r["product"] for r in await statement.fetch(n, 0)])
    await connection.execute("alter table later add extra text default 'e'")
    show("changed", [tuple(r) for r in await connection.fetch("select * from later order by i")])
    many = [await connection.prepare(f"select {n}") for n in range(200)]
    show("many", sum([await s.fetchval() for s in many]))


async def cursors(connection: asyncpg.Connection) -> None:
    section("cursors")
    async with connection.transaction():
        total = 0
        async for row in connection.cursor("select generate_series(1, 20000)", prefetch=333):
            total += row[0]
        show("iterated", total)
        cursor = await connection.cursor("select generate_series(1, 100)")
        show("fetched", [r[0] for r in await cursor.fetch(3)])
        show("forwarded", await cursor.forward(90))
        show("rest", [r[0] for r in await cursor.fetch(100)])


async def copying(connection: asyncpg.Connection) -> None:
    section("COPY")
    await connection.execute("create table c (i int, t text)")
    records = [(n, "t" * (n % 50)) for n in range(50_000)]
    show("records", await connection.copy_records_to_table("c", records=records, schema_name=SCHEMA))
    for copy_format in ("text", "csv", "binary"):
        out = io.BytesIO()
        query = f"select * from {SCHEMA}.c order by i"
        show("out", await connection.copy_from_query(query, output=out, format=copy_format))
        show(copy_format, digest([out.getvalue()]))
        out.seek(0)
        show("in", await connection.copy_to_table(
            "c", source=out, schema_name=SCHEMA, format=copy_format
        ))
    try:
        await connection.copy_to_table("c", source=io.BytesIO(b"x\ty\n"), schema_name=SCHEMA)
    except asyncpg.PostgresError as error:
        show_error("refused", error)

    async def failing():
        yield b"1\tone\n"
        raise LookupError("the program changed its mind")

    try:
        await connection.copy_to_table("c", source=failing(), schema_name=SCHEMA)
    except (LookupError, asyncpg.PostgresError) as error:
        show("given up", type(error).__name__)
    show("stored", tuple(await connection.fetchrow("select count(*), sum(i) from c")))


async def listening(connection: asyncpg.Connection) -> None:
    section("LISTEN and NOTIFY")
    heard: asyncio.Queue = asyncio.Queue()
    await connection.add_listener("asyncpg_client", lambda *told: heard.put_nowait(told[2:]))
    other = await asyncpg.connect()
    for n in range(10):
        await other.execute(f"notify asyncpg_client, 'payload {n}'")
    await other.close()
    show("heard", [await asyncio.wait_for(heard.get(), 30) for _ in range(10)])
    await connection.reset()


async def timing_out(connection: asyncpg.Connection) -> None:
    section("a query that times out is cancelled")
    for _ in range(3):
        try:
            await connection.execute("select pg_sleep(60)", timeout=0.1)
        except TimeoutError as error:
            show("timed out", type(error).__name__)
        show("still usable", await connection.fetchval("select 'yes'"))


async def pooled() -> None:
    section("a pool")
    async with asyncpg.create_pool(min_size=4, max_size=4) as pool:
        show("sum", sum(await asyncio.gather(*(
            pool.fetchval("select $1::int", n) for n in range(200)
        ))))


asyncio.run(main())
