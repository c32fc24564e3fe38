"""asyncpg before masks: it describes statements once and asks for binary results."""

import asyncio

import asyncpg

from transcript import section, show


async def main() -> None:
    connection = await asyncpg.connect()
    section("rows")
    for _ in range(2):
        row = await connection.fetchrow(
            "select id, email, ssn, birth_year, name, to_jsonb(c) as j from customers c where id = $1", 1
        )
        assert tuple(row)[:5] == (1, "a***@example.com", "[masked]", None, "Alice"), row
        assert '"ssn": "[masked]"' in row["j"], row
        show("row", tuple(row))
    section("cursor")
    async with connection.transaction():
        async for row in connection.cursor("select email, name from customers order by id", prefetch=1):
            show("row", tuple(row))
    statement = await connection.prepare("select email, upper(ssn) from customers order by id")
    show("prepared", [tuple(row) for row in await statement.fetch()])
    show("count", await connection.fetchval("select count(*) from customers where email like $1", "a%"))
    await connection.close()


asyncio.run(main())
