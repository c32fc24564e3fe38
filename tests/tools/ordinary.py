"""Holds what ordinary tools ask when they start against a gateway with twenty rules and five masks
(benches/rules.toml, benches/masks.toml): each answer must be the one that the server gives itself.

JDBC's metadata are what DBeaver, Metabase and others ask (Metadata.java, with Debian's driver);
pgAdmin's questions are its own templates, from PyPI; SQLAlchemy's are its own tests of a dialect. Run by
`scripts/soak tools`."""

import os
import pathlib
import re
import subprocess
import sys
import zipfile
from xml.etree import ElementTree

import jinja2
import psycopg

HERE = pathlib.Path(__file__).parent
BENCHES = HERE.parent.parent / "benches"
sys.path.insert(0, str(BENCHES))
from servers import Bench  # noqa: E402

# What pgAdmin reads to draw its tree and its panels; the rest creates and alters.
READING = re.compile(
    r"/(nodes|node|properties|count|stats|coll_stats|get_\w+|variables|backend_support|acl|children"
    r"|depend\w*|defacl)\.sql$"
)
# Of other products, or without the versions that this server has.
NOT_HERE = re.compile(r"/(ppas|pgd|gpdb)/|pgd_|pgagent|replica_nodes|resource_groups|synonyms|packages")

# A view that its own transaction has not committed is nowhere to be looked up, so masks hide its columns
# (docs/masks.md).
HIDDEN = "TableViaSelectTest", "test_without_metadata[use_schema1]"

# The tests make these, and what follows from code is closed where masks apply.
MADE = """
[[rule]]
name = "what-the-tests-make"
actions = ["sql.create", "sql.alter"]
objects = ["extension:*", "type:*", "table:*", "column:*"]
verdict = "allow"
"""
# Masks that change no value: statements are rewritten, and their answers are the same. Of most numbers in
# SQLAlchemy's tables.
UNCHANGING = MADE + """
[[mask]]
name = "unchanging"
columns = ["*.id", "*.x", "*.y", "*.user_id", "*.address_id", "*.intcol", "*.parent_id"]
with = "bucket"
step = 1
"""
# How the gateway begins to say that it refuses a statement for its masks.
REFUSED = re.compile("masked columns|columns are masked|a masked|have masked|is masked|no rule allows|opaque")


def main() -> None:
    wheel, driver = map(pathlib.Path, sys.argv[1:])
    with Bench() as bench:
        direct = bench.postgres()
        ways = [direct, *gateways(bench, direct)]
        differing = jdbc(ways[:2], driver) + pgadmin(ways[:2], wheel) + sqlalchemy(bench, ways)
    for line in differing:
        print(line)
    sys.exit(bool(differing))


def gateways(bench, direct) -> list:
    rules, masks = ((BENCHES / file).read_text() for file in ("rules.toml", "masks.toml"))
    return [bench.portcullis(direct, "masked", rules + masks + MADE),
            bench.portcullis(direct, "unchanging", UNCHANGING)]


def jdbc(ways, driver) -> list:
    said = []
    for env in ways:
        url = f"jdbc:postgresql://127.0.0.1:{env['PGPORT']}/{env['PGDATABASE']}?sslmode=disable"
        said.append(subprocess.run(
            ["java", "-cp", driver, HERE / "Metadata.java"], env=os.environ | env | {"JDBC": url},
            check=True, capture_output=True, text=True,
        ).stdout.splitlines())
    print(f"JDBC: {len(said[0])} answers")
    # The catalog's own name is the target's.
    return [f"{a}\n  through the gateway: {b}" for a, b in zip(*said, strict=True) if a != b]


def pgadmin(ways, wheel) -> list:
    connections = []
    for env in ways:
        info = {"host": "127.0.0.1", "port": env["PGPORT"], "user": "bench", "sslmode": "disable",
                "dbname": env["PGDATABASE"], "password": env["PGPASSWORD"]}
        connections.append(psycopg.connect(**info, autocommit=True, prepare_threshold=None))
    # As it sets every connection up.
    for connection in connections:
        connection.execute("SET DateStyle=ISO")
        connection.execute("SET client_min_messages=notice")
        connection.execute("SELECT set_config('bytea_output','hex',false) FROM pg_show_all_settings()"
                           " WHERE name = 'bytea_output'")
        connection.execute("SET client_encoding='utf-8'")
    known = ids(connections[0])
    differing, count, answered = [], 0, 0
    for name, sql in templates(wheel, known):
        came = [outcome(connections[0], sql)]
        if came[0] == ("error", "42601"):
            continue  # It asks about something for which there is no number above.
        came.append(outcome(connections[1], sql))
        count += 1
        answered += came[0][0] == "rows"
        if came[0] != came[1]:
            differing.append(f"{name}: {came[0]}\n  through the gateway: {came[1]}")
    print(f"pgAdmin: {count} questions, {answered} of them with rows, the rest with an error")
    return differing


def sqlalchemy(bench, ways) -> list:
    """Each of SQLAlchemy's own tests must come to the same end."""
    subprocess.run(["psql", "-qc", "create schema test_schema"], env=ways[0], check=True)
    ends, said = [], []
    for number, env in enumerate(ways):
        report = bench.directory / f"sqlalchemy-{number}.xml"
        url = f"postgresql+psycopg://bench:{env['PGPASSWORD']}@127.0.0.1:{env['PGPORT']}/{env['PGDATABASE']}"
        run = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
             "--dburi", url], cwd=HERE / "orm", capture_output=True, text=True,
        )
        if not report.exists():
            raise SystemExit(run.stdout + run.stderr)
        cases = list(ElementTree.parse(report).iter("testcase"))
        named = [f"{case.get('classname')}.{case.get('name')}" for case in cases]
        ends.append(dict(zip(named, (sorted(end.tag for end in case) for case in cases))))
        said.append(dict(zip(named, ("".join(case.itertext()) for case in cases))))
    passed = sum(not end for end in ends[0].values())
    print(f"SQLAlchemy: {len(ends[0])} tests, {passed} of them pass directly")
    refused = [name for name, words in said[2].items() if REFUSED.search(words)]
    same = sum(ends[2].get(name) == end for name, end in ends[0].items())
    print(f"SQLAlchemy where most numbers have a mask that changes nothing: {same} come to the same end,"
          f" {len(refused)} are refused")
    differing = []
    for through in (1, 2):
        differing += [
            f"{name}: {end}\n  through the gateway: {ends[through].get(name)} {said[through].get(name, '')[-400:]}"
            for name, end in ends[0].items()
            if ends[through].get(name) != end and not all(part in name for part in HIDDEN)
            and not (through == 2 and name in refused)
        ]
    return differing


def ids(connection) -> dict:
    """What the templates are asked about."""
    def one(sql):
        return connection.execute(sql).fetchone()[0]

    table = one("select 'pgbench_accounts'::regclass::oid")
    database = one("select oid from pg_database where datname = current_database()")
    schema = one("select 'public'::regnamespace::oid")
    return {
        "did": database, "datlastsysoid": 16383, "last_system_oid": 16383, "scid": schema,
        "tid": table, "foid": table, "parent_id": schema, "schema_id": schema, "vid": table,
        "show_sysobj": True, "show_system_objects": True, "table_id": table, "oid": table,
        "conn": None, "cid": table, "rid": one("select oid from pg_roles limit 1"),
        "tsid": one("select oid from pg_tablespace limit 1"), "is_schema_only": False,
    }


def templates(wheel, known):
    """Each reading template of pgAdmin, rendered."""
    def literal(value, *_):
        return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"

    def identifier(*parts):
        return ".".join('"' + str(part).replace('"', '""') + '"' for part in parts if part)

    environment = jinja2.Environment(undefined=jinja2.ChainableUndefined, extensions=["jinja2.ext.do"])
    environment.filters |= {"qtLiteral": literal, "qtIdent": identifier, "qtTypeIdent": identifier}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if "/sql/" not in name or not READING.search(name) or NOT_HERE.search(name):
                continue
            try:
                sql = environment.from_string(archive.read(name).decode()).render(known)
            except (jinja2.TemplateError, TypeError, KeyError):
                continue  # It includes macros, or needs an object of pgAdmin's.
            if sql.strip():
                yield name.removeprefix("pgadmin4/pgadmin/"), sql


def outcome(connection, sql):
    """The columns and how many rows, or the error's code."""
    try:
        cursor = connection.execute(sql)
        if cursor.description is None:
            return ("done", cursor.statusmessage)
        return ("rows", [column.name for column in cursor.description], len(cursor.fetchall()))
    except psycopg.Error as error:
        return ("error", error.sqlstate)


main()
