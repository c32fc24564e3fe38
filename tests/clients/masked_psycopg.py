"""psycopg 3 before masks: both formats, cursors, prepared statements, COPY."""

import psycopg

from transcript import section, show, show_error

SQL = "select id, email, ssn, birth_year, name, upper(email) as shout from customers where id = %s"


def main() -> None:
    with psycopg.connect(autocommit=True) as connection:
        for binary in (False, True):
            section(f"binary {binary}")
            with connection.cursor(binary=binary) as cursor:
                for _ in range(8):
                    row = cursor.execute(SQL, (1,), prepare=True).fetchone()
                assert row == (1, "a***@example.com", "[masked]", None, "Alice", "A***@EXAMPLE.COM"), row
                show("row", row)
                whole = cursor.execute("select c from customers c where id = 1").fetchone()
                show("whole row", whole)
        section("cursor on the server")
        with connection.transaction(), connection.cursor("named", binary=True) as cursor:
            cursor.itersize = 1
            cursor.execute("select email, ssn from customers order by id")
            for row in cursor:
                show("row", row)
        section("copy")
        for sql in ("copy customers to stdout", "copy customers (id, name) to stdout"):
            try:
                with connection.cursor().copy(sql) as copy:
                    show(sql, [bytes(chunk) for chunk in copy])
            except psycopg.Error as error:
                show_error(sql, error)
        section("pipeline")
        with connection.pipeline():
            cursors = [connection.execute(SQL, (n,)) for n in (1, 2)]
            show("rows", [cursor.fetchall() for cursor in cursors])
        section("errors")
        try:
            connection.execute("select email::int from customers")
        except psycopg.Error as error:
            show_error("cast", error)
        show("still usable", connection.execute("select 1").fetchone())


main()
