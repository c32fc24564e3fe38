"""Every kind of type, masked: drivers decode what comes, and values that hold no mask are NULL."""

import psycopg

from transcript import show

HOLDS = ("t", "v", "c", "j", "jb", "b", "x")


def main() -> None:
    with psycopg.connect(autocommit=True) as connection:
        seen = {}
        for binary in (False, True):
            cursor = connection.cursor(binary=binary, row_factory=psycopg.rows.dict_row)
            row = cursor.execute("select * from typed").fetchone()
            for name, value in row.items():
                assert (value is not None) == (name in HOLDS), (name, value)
                assert "sentinel" not in repr(value), value
            seen[binary] = {name: row[name] for name in HOLDS if name not in ("b", "x")}
            assert row["b"].startswith(b"[masked:"), row
            show("row", [name for name, value in row.items() if value is not None])
        assert seen[False] == seen[True], seen


main()
