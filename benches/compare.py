"""Measures pgbench, bulk reads and new TLS connections over several ways to one server, round by
round in turn, so that what the machine does besides falls on all of them; prints medians and
ratios as Markdown. Run by scripts/bench.

p50 is the median over all transactions of pgbench's own log. PgBouncer pools sessions, so a new
client connection costs it no new server connection; the others open one each."""

import argparse
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

from servers import Bench, run

WAYS = ("direct", "pgbouncer", "relay", "portcullis")
# Not of that comparison: what the index costs (--ways portcullis unindexed), and what rules and
# masks cost (--ways portcullis ruled masked).
MORE_WAYS = ("unindexed", "ruled", "masked")
# Which way is told as a ratio of which.
RATIOS = (
    ("portcullis", "direct"), ("portcullis", "pgbouncer"), ("portcullis", "unindexed"),
    ("ruled", "portcullis"), ("masked", "portcullis"),
)
MODES = ("simple", "extended", "prepared")
CLIENTS = (1, 4, 16)


def main() -> None:
    arguments = parse()
    raw, figures = [], {}

    def note(case: str, way: str, **measured) -> None:
        figures.setdefault(case, {}).setdefault(way, []).append(measured)
        told = " ".join(f"{name}={value:.6g}" for name, value in measured.items())
        raw.append(f"{case:24} {way:10} {told}")
        print(raw[-1], file=sys.stderr, flush=True)

    with Bench() as bench:
        direct = bench.postgres()
        start = {
            "direct": lambda _: direct,
            "pgbouncer": bench.pgbouncer,
            "relay": bench.relay,
            "portcullis": bench.portcullis,
            "unindexed": bench.unindexed,
            "ruled": bench.ruled,
            "masked": bench.masked,
        }
        ways = {way: start[way](direct) for way in arguments.ways}
        for round_number in range(arguments.rounds):
            load = os.getloadavg()[0]
            raw.append(f"# round {round_number + 1}; load before it {load:.1f}")
            for mode in MODES:
                for clients in CLIENTS:
                    for way, env in ways.items():
                        measured = pgbench(bench, env, mode, clients, arguments.seconds)
                        note(f"{mode}, {clients} at once", way, **measured)
            for case, command in bulk_reads().items():
                for way, env in ways.items():
                    note(case, way, seconds=timed(env, command))
            for way, env in ways.items():
                secured = env | {"PGSSLMODE": "require"}
                measured = pgbench(bench, secured, "simple", 4, arguments.seconds, "-C")
                note("TLS connections", way, tps=measured["tps"])
            if "portcullis" in ways:
                behind = bench.figure("portcullis", "portcullis_index_behind_seconds")
                raw.append(f"# the index is {behind:.1f} s behind after it")
    tables(arguments, figures, raw)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each pgbench run")
    parser.add_argument("--ways", nargs="+", choices=WAYS + MORE_WAYS, default=WAYS)
    parser.add_argument("--out", type=pathlib.Path, help="where tables and raw figures go")
    return parser.parse_args()


def pgbench(bench, env, mode, clients, seconds, *more) -> dict:
    prefix = bench.directory / "transactions"
    result = run(
        "pgbench", "-n", "-S", "-M", mode, "-c", str(clients), "-j", str(min(clients, 2)),
        "-T", str(seconds), "-l", f"--log-prefix={prefix}", *more, env=env, capture_output=True,
    )
    tps = next(float(line.split()[2]) for line in result.stdout.splitlines() if "tps =" in line)
    times = []
    for log in bench.directory.glob("transactions*"):
        times += [int(line.split()[2]) for line in log.read_text().splitlines()]
        log.unlink()
    return {"tps": tps, "p50_us": statistics.median(times)}


def bulk_reads() -> dict:
    return {
        "1e6 rows by COPY": ["-c", "copy pgbench_accounts to stdout"],
        "1e6 rows by SELECT": ["-At", "-c", "select * from pgbench_accounts"],
    }


def timed(env, arguments) -> float:
    started = time.monotonic()
    run("psql", "-X", *arguments, env=env, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def tables(arguments, figures, raw) -> None:
    ways = list(arguments.ways)
    out = [
        f"{arguments.rounds} rounds of {arguments.seconds} s; {os.cpu_count()} cores of"
        f" {platform.machine()}, load at the end {os.getloadavg()[0]:.1f},"
        f" {platform.python_implementation()} {platform.python_version()},"
        f" {run('postgres', '--version', capture_output=True).stdout.strip()}",
        "",
    ]

    def table(title, key, unit, better) -> None:
        cases = [case for case, by in figures.items() if key in next(iter(by.values()))[0]]
        compared = [(way, base) for way, base in RATIOS if way in ways and base in ways]
        heads = [title, *(f"{way}, {unit}" for way in ways)]
        heads += [f"{way} of {base}" for way, base in compared]
        if key == "p50_us" and {"relay", "portcullis"} <= set(ways):
            heads = [*heads[: 1 + len(ways)], "above relay, µs"]
        out.append("| " + " | ".join(heads) + " |")
        out.append("| --- |" + " ---: |" * (len(heads) - 1))
        for case in cases:
            median = {
                way: statistics.median(run[key] for run in figures[case][way]) for way in ways
            }
            cells = [f"{median[way]:,.3g}" if unit == "s" else f"{median[way]:,.0f}" for way in ways]
            if heads[-1] == "above relay, µs":
                cells.append(f"{median['portcullis'] - median['relay']:,.0f}")
            else:
                for way, base in compared:
                    ratio = median[way] / median[base]
                    cells.append(f"{ratio if better == 'more' else 1 / ratio:.2f}")
            out.append(f"| {case} | " + " | ".join(cells) + " |")
        out.append("")

    table("throughput", "tps", "tps", "more")
    table("latency, p50", "p50_us", "µs", "less")
    table("bulk", "seconds", "s", "less")
    text = "\n".join(out)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n" + "\n".join(raw) + "\n")


main()
