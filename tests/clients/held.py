"""Runs a write that waits for people: `held.py psycopg | sqlalchemy | pipeline [MARK]`. Prints what came of it.

The mark stands in the write as a comment, and in a pipeline in what is behind it too.
"""

import os
import sys

MARK = sys.argv[2] if len(sys.argv) > 2 else ""


def psycopg_client():
    import psycopg

    with psycopg.connect("") as connection:
        connection.add_notice_handler(lambda notice: print("notice:", notice.message_primary.split(",")[0]))
        try:
            # The driver begins a transaction by itself.
            cursor = connection.execute(f"update pears set n = n + %s where n < %s /* {MARK} */", (1, 100))
            print("changed", cursor.rowcount)
            connection.commit()
        except psycopg.Error as error:
            print("refused", error.sqlstate, error.diag.message_primary)
            connection.rollback()
        print("then", connection.execute("select 7").fetchone()[0])


def sqlalchemy_client():
    import sqlalchemy
    from sqlalchemy.exc import DBAPIError

    host, port = os.environ["PGHOST"], os.environ["PGPORT"]
    url = sqlalchemy.URL.create(
        "postgresql+psycopg",
        username=os.environ["PGUSER"],
        password=os.environ["PGPASSWORD"],
        host=host,
        port=int(port),
        database=os.environ["PGDATABASE"],
    )
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        try:
            done = connection.execute(
                sqlalchemy.text(f"update pears set n = n + :by where n < :most /* {MARK} */"), {"by": 1, "most": 100}
            )
            print("changed", done.rowcount)
            connection.commit()
        except DBAPIError as error:
            print("refused", error.orig.sqlstate, error.orig.diag.message_primary)
            connection.rollback()
        print("then", connection.execute(sqlalchemy.text("select 7")).scalar())


def pipeline_client():
    import psycopg

    with psycopg.connect("", autocommit=True) as connection:
        try:
            with connection.pipeline():
                change = connection.execute(f"update pears set n = n + %s /* {MARK} */", (1,))
                behind = connection.execute(f"/* {MARK} */ select %s::int + 4", (1,))
                selected = behind.fetchone()[0]
            print("changed", change.rowcount)
            print("selected", selected)
        except psycopg.Error as error:
            print("refused", error.sqlstate, error.diag.message_primary)
        print("then", connection.execute("select 7").fetchone()[0])


{"pipeline": pipeline_client, "psycopg": psycopg_client, "sqlalchemy": sqlalchemy_client}[sys.argv[1]]()
