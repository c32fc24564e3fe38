"""What drivers go on doing in one session after a rule has blocked a statement of theirs.

Needs a gateway that blocks DROP; the table `kept (i int primary key)` is there and empty.
"""

import asyncio

import asyncpg
import psycopg
from sqlalchemy import create_engine, exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from transcript import section, show

DROP = "drop table kept"


def told(error) -> tuple:
    """The same of every driver."""
    said = getattr(error, "diag", None)
    code = getattr(error, "sqlstate", None)
    reason = said.message_primary if said else str(error).splitlines()[0]
    hint = said.message_hint if said else getattr(error, "hint", "")
    return code, reason, (hint or "").startswith("Session ")


def with_psycopg() -> None:
    section("psycopg")
    with psycopg.connect(autocommit=True) as connection:
        for prepare in (False, True):
            try:
                connection.execute(DROP, prepare=prepare)
            except psycopg.Error as error:
                show("blocked", told(error))
            show("goes on", connection.execute("select %s::int", (1,)).fetchone())
        with connection.transaction():
            connection.execute("insert into kept values (1)")
            with connection.cursor("named") as cursor:
                cursor.execute("select generate_series(1, 5)")
                show("a cursor", cursor.fetchmany(2))
                try:
                    with connection.transaction():
                        connection.execute(DROP)
                except psycopg.Error as error:
                    show("in a transaction", told(error))
                show("the cursor", cursor.fetchall())
            connection.execute("insert into kept values (2)")
        try:
            with connection.transaction():
                connection.execute("insert into kept values (3)")
                connection.execute(DROP)
        except psycopg.Error as error:
            show("the transaction fails", told(error))
        with_pipelines(connection)
        show("kept", connection.execute("select i from kept order by i").fetchall())


def with_pipelines(connection: psycopg.Connection) -> None:
    with connection.pipeline() as pipeline:
        connection.execute("insert into kept values (10)")
        pipeline.sync()
        connection.execute("insert into kept values (11)")
        blocked = connection.execute(DROP)
        skipped = connection.execute("insert into kept values (12)")
        # Which of these raises depends on how much of the answers is there already.
        failed = 0
        for wait in (pipeline.sync, blocked.fetchone, skipped.fetchone):
            try:
                wait()
            except psycopg.Error:
                failed += 1
        show("in a pipeline", failed >= 2)
        last = connection.execute("select 'last'")
        show("the pipeline goes on", last.fetchone())
    show("status", connection.info.transaction_status.name)


async def with_asyncpg() -> None:
    section("asyncpg")
    connection = await asyncpg.connect()
    for run in (connection.execute, connection.fetch):
        try:
            await run(DROP)
        except asyncpg.PostgresError as error:
            show("blocked", told(error))
        show("goes on", await connection.fetchval("select $1::int", 2))
    try:
        async with connection.transaction():
            await connection.execute("insert into kept values ($1)", 20)
            try:
                async with connection.transaction():
                    await connection.execute(DROP)
            except asyncpg.PostgresError as error:
                show("in a transaction", told(error))
            await connection.execute("insert into kept values ($1)", 21)
    except asyncpg.PostgresError as error:
        show("the transaction fails", told(error))
    prepared = await connection.prepare("select count(*) from kept where i >= $1")
    show("a prepared statement", await prepared.fetchval(20))
    try:
        await connection.prepare(DROP)
    except asyncpg.PostgresError as error:
        show("is not prepared", told(error))
    show("the prepared statement", await prepared.fetchval(20))
    await connection.close()


def with_sqlalchemy() -> None:
    section("SQLAlchemy")
    engine = create_engine("postgresql+psycopg://", pool_size=1, max_overflow=0, pool_pre_ping=True)
    with engine.connect() as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
        connection.rollback()
        try:
            with connection.begin():
                connection.execute(text("insert into kept values (30)"))
                connection.execute(text(DROP))
        except exc.DBAPIError as error:
            show("blocked", (type(error).__name__, told(error.orig), error.connection_invalidated))
        with connection.begin():
            connection.execute(text("insert into kept values (31)"))
            try:
                with connection.begin_nested():
                    connection.execute(text(DROP))
            except exc.DBAPIError as error:
                show("nested", told(error.orig))
            connection.execute(text("insert into kept values (32)"))
    with engine.connect() as connection:
        same = connection.scalar(text("select pg_backend_pid()")) == pid
        show("the same session", same)
        rows = connection.scalars(text("select i from kept where i >= 30 order by i")).all()
        show("kept", rows)
    engine.dispose()
    asyncio.run(asynchronously())


async def asynchronously() -> None:
    engine = create_async_engine("postgresql+asyncpg://", pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        try:
            await connection.execute(text(DROP))
        except exc.DBAPIError as error:
            show("asynchronously", type(error).__name__)
        await connection.rollback()
        show("goes on", await connection.scalar(text("select 3")))
    await engine.dispose()


if __name__ == "__main__":
    with_psycopg()
    asyncio.run(with_asyncpg())
    with_sqlalchemy()
