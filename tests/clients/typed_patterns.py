"""asyncpg before patterns: values of every type in the binary format, and the same in the text format."""

import asyncio

import asyncpg

from transcript import section, show

CARD = 4111111111111111

# Of what is selected, what comes: None for a value that cannot hold a mask.
EXPECTED = [
    ("{card}::int8", None),
    ("{card}::numeric", None),
    ("{card}.00::numeric(20, 2)", None),
    ("{card}::float8", None),
    ("{card}::card_number", None),
    ("array[{card}, 7]::int8[]", [None, 7]),
    ("array[[7, {card}], [8, 9]]::numeric[]", [[7, None], [8, 9]]),
    ("array[{card}, 7]::card_number[]", [None, 7]),
    ("numrange(1, {card})", None),
    ("numrange(1, 2)", asyncpg.Range(1, 2)),
    ("int8multirange(int8range(1, {card}))", None),
    ("row(7, '{card}', {card})::payment", (7, "[credit-card]", None)),
    ("array[row(7, 'none', {card})::payment]", [(7, "none", None)]),
    ("'open'::mood", "open"),
    # asyncpg reads an unnamed record only of types that it has seen.
    ("row({card}::int8, 'to a@b.cc', 'open'::mood)", (None, "to [email]", "open")),
    ("array['open', 'a@b.cc']::mood[]", ["open", None]),
    ("array['to a@b.cc', 'x']", ["to [email]", "x"]),
    ("'{{\"score\": 0.6543798596614172, \"card\": {card}, \"to\": \"a@b.cc\"}}'::jsonb",
     '{"to": "[email]", "card": null, "score": 0.6543798596614172}'),
    # Digits of a number that would pass for a card, were they not behind its point.
    ("array[0.4012888888881881, 0.25]::float8[]", [0.4012888888881881, 0.25]),
    ("'to a@b.cc'::bytea", None),
    ("'plain'::bytea", b"plain"),
    ("point({card}, 1)", None),
    ("7::numeric", 7),
]


def plain(value: object) -> object:
    """Records as tuples, numbers as they compare."""
    if isinstance(value, asyncpg.Record):
        return tuple(plain(part) for part in value)
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value


async def main() -> None:
    connection = await asyncpg.connect()
    for sql, expected in EXPECTED:
        sql = "select " + sql.format(card=CARD)
        section(sql)
        value = plain(await connection.fetchval(sql))
        assert value == expected, (sql, value)
        show("binary", value)
    # asyncpg reads no text: the server writes it, and the gateway masks that as text.
    texts = await connection.fetchval("select array_agg(x::text) from unnest(array[%d, 7]::card_number[]) x" % CARD)
    assert texts == ["[credit-card]", "7"], texts
    await connection.close()


asyncio.run(main())
