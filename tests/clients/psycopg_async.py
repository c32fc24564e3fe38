"""psycopg 3, asynchronous: many connections at once, streaming, notifications, cancelling tasks."""

import asyncio

import psycopg

from transcript import digest, section, show, show_error

SCHEMA = "clients_psycopg_async"


async def main() -> None:
    async with await psycopg.AsyncConnection.connect(autocommit=True) as connection:
        await connection.execute("set client_min_messages = warning")
        await connection.execute(f"drop schema if exists {SCHEMA} cascade")
        await connection.execute(f"create schema {SCHEMA}")
        await connection.execute(f"create table {SCHEMA}.t (worker int, n int)")
        await many_at_once(connection)
        await streaming(connection)
        await notifications(connection)
        await cancelling(connection)
        await connection.execute(f"drop schema {SCHEMA} cascade")


async def many_at_once(connection: psycopg.AsyncConnection) -> None:
    section("many connections at once")
    await asyncio.gather(*(worker(n) for n in range(16)))
    cursor = await connection.execute(
        f"select worker, count(*), sum(n) from {SCHEMA}.t group by 1 order by 1"
    )
    show("written", await cursor.fetchall())


async def worker(number: int) -> None:
    async with await psycopg.AsyncConnection.connect() as connection:
        for n in range(20):
            async with connection.transaction(force_rollback=n % 2 == 1):
                await connection.execute(f"insert into {SCHEMA}.t values (%s, %s)", (number, n))


async def streaming(connection: psycopg.AsyncConnection) -> None:
    section("rows one at a time, and in chunks")
    async with connection.cursor() as cursor:
        for size in (1, 1000):
            total = 0
            query = "select g from generate_series(1, 20000) g"
            async for (g,) in cursor.stream(query, size=size):
                total += g
            show(f"size {size}", total)
        seen = 0
        async for _ in cursor.stream("select 10 / (50 - g) from generate_series(1, 100) g"):
            seen += 1
            if seen == 10:
                break
        show("left early", seen)
        try:
            async for _ in cursor.stream("select 10 / (50 - g) from generate_series(1, 100) g"):
                pass
        except psycopg.Error as error:
            show_error("an error in the middle", error)


async def notifications(connection: psycopg.AsyncConnection) -> None:
    section("notifications while idle")
    await connection.execute("listen psycopg_async")

    async def listen() -> list[str]:
        return [n.payload async for n in connection.notifies(timeout=30, stop_after=100)]

    async def notify() -> None:
        async with await psycopg.AsyncConnection.connect(autocommit=True) as other:
            for n in range(100):
                await other.execute("select pg_notify('psycopg_async', %s)", (str(n),))

    heard, _ = await asyncio.gather(listen(), notify())
    show("heard", heard)


async def cancelling(connection: psycopg.AsyncConnection) -> None:
    section("a cancelled task cancels its query")
    # What the server calls its process; the client's own number for it may be another.
    (pid,) = await (await connection.execute("select pg_backend_pid()")).fetchone()
    task = asyncio.create_task(connection.execute("select pg_sleep(30)"))
    running = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
    async with await psycopg.AsyncConnection.connect(autocommit=True) as watcher:
        while not task.done() and not await (await watcher.execute(running, (pid,))).fetchone():
            pass
    task.cancel()
    try:
        await task
    except (asyncio.CancelledError, psycopg.Error) as error:
        show("ended with", type(error).__name__)
    cursor = await connection.execute("select 'yes'")
    show("still usable", await cursor.fetchone())
    try:
        async with asyncio.timeout(0.2):
            await connection.execute("select pg_sleep(60)")
    except TimeoutError as error:
        show("timed out", type(error).__name__)
    cursor = await connection.execute("select repeat('z', 1000000)")
    show("still usable", digest([(await cursor.fetchone())[0].encode()]))


asyncio.run(main())
