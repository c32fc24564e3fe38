"""Measures what the index costs: pgbench over a gateway that writes its index and over one that
has no database to write it into, in turn, so that what the machine does besides falls on both.
After each run it waits until the index has caught up, so that nothing of one run is done in
another. Prints medians, ratios and how far the index was behind as Markdown. Run by scripts/bench."""

import argparse
import os
import pathlib
import statistics
import subprocess
import time

from servers import Bench

# What pgbench runs: its own TPC-B-like transactions, and single SELECTs in its three modes.
RUNS = {
    "SELECT, simple": ["-S", "-M", "simple"],
    "SELECT, extended": ["-S", "-M", "extended"],
    "SELECT, prepared": ["-S", "-M", "prepared"],
    "TPC-B": [],  # last: the server tidies up behind it for a while
}
SCALE = "10"
CLIENTS = "4"
CAUGHT_UP_SECONDS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of each pgbench run")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", type=pathlib.Path, help="where the tables go")
    arguments = parser.parse_args()

    with Bench() as bench:
        direct = bench.postgres()
        pgbench(direct, "-i", "-q", "-s", SCALE)
        indexed, unindexed = bench.portcullis(direct), bench.unindexed(direct)
        pgbench(indexed, "-n", "-S", "-c", "1", "-t", "1")
        catch_up(bench)
        rates, behind, waits = {}, {}, {}
        ways = [("indexed", indexed), ("unindexed", unindexed)]
        for _ in range(arguments.rounds):
            ways.reverse()
            for run, options in ((run, RUNS[run]) for run in arguments.runs):
                for way, reached in ways:
                    said = pgbench(reached, "-n", "-c", CLIENTS, "-T", str(arguments.seconds), *options)
                    rates.setdefault((run, way), []).append(rate(said))
                    if way == "indexed":
                        behind.setdefault(run, []).append(index_behind(bench))
                        waits.setdefault(run, []).append(catch_up(bench))

    lines = [
        f"{arguments.rounds} rounds of {arguments.seconds} s, {CLIENTS} clients; {os.cpu_count()} cores",
        "",
        "| pgbench | indexed, tps | unindexed, tps | ratio | index behind, s | caught up after, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in arguments.runs:
        with_index, without = (statistics.median(rates[run, way]) for way in ("indexed", "unindexed"))
        lines.append(f"| {run} | {with_index:,.0f} | {without:,.0f} | {with_index / without:.2f} | "
                     f"{statistics.median(behind[run]):.1f} | {statistics.median(waits[run]):.1f} |")
    lines += ["", *(f"{run}, {way}: {values}" for (run, way), values in rates.items())]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


def pgbench(reached: dict, *options: str) -> str:
    command = ["pgbench", *options]
    return subprocess.run(command, env={**os.environ, **reached}, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def rate(said: str) -> float:
    return next(float(line.split()[2]) for line in said.splitlines() if line.startswith("tps"))


def index_behind(bench: Bench) -> float:
    return bench.figure("portcullis", "portcullis_index_behind_seconds")


def catch_up(bench: Bench) -> float:
    """Waits until the index is where the recordings are; gives the seconds that it took."""
    began = time.monotonic()
    while index_behind(bench) > CAUGHT_UP_SECONDS:
        time.sleep(0.1)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
