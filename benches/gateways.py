"""Compares two builds of the gateway before one PostgreSQL server: the processor time that a
transaction costs, by turns in one run, so that what else the machine does meets both alike."""

import argparse
import os
import pathlib
import random
import re
import statistics

import servers
from servers import Bench, run

MODES = ("simple", "extended", "prepared", "connections")
WAYS = ("portcullis", "ruled", "masked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs=2, type=pathlib.Path, help="folders with a portcullis each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--transactions", type=int, default=3000, help="of each of four clients")
    arguments = parser.parse_args()
    figures = {}
    with Bench() as bench:
        direct = bench.postgres()
        gateways = {}
        for at, build in enumerate(arguments.builds):
            servers.RELEASE = build
            for way in arguments.ways:
                gateways[way, at] = start(bench, direct, way, at)
        for round in range(arguments.rounds):
            for mode in arguments.modes:
                for way in arguments.ways:
                    for at in (0, 1) if round % 2 == 0 else (1, 0):
                        cost = measure(*gateways[way, at], mode, arguments.transactions)
                        figures.setdefault((mode, way), ([], []))[at].append(cost)
    print("| processor time, µs a transaction | before | after | after of before | within (95 %) | of each round |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for (mode, way), both in figures.items():
        before, after = map(statistics.mean, both)
        rounds = " ".join(f"{b / a:.2f}" for a, b in zip(*both))
        print(f"| {mode}, {way} | {before:.1f} | {after:.1f} | {after / before:.3f} | {interval(*both)} | {rounds} |")
    print(f"\n{os.cpu_count()} cores, load at the end {os.getloadavg()[0]:.1f}")


def interval(before: list, after: list) -> str:
    """Between what the ratio of the means lies, by drawing rounds again."""
    draw = random.Random(1)
    pairs = list(zip(before, after))
    ratios = []
    for _ in range(2000):
        drawn = draw.choices(pairs, k=len(pairs))
        ratios.append(sum(b for _, b in drawn) / sum(a for a, _ in drawn))
    ratios.sort()
    return f"{ratios[50]:.3f} to {ratios[-51]:.3f}"


def start(bench: Bench, direct: dict, way: str, at: int) -> tuple:
    name = f"{way}-{at}"
    sections = "".join((servers.HERE / file).read_text() for file in {
        "portcullis": (), "ruled": ("rules.toml",), "masked": ("rules.toml", "masks.toml"),
    }[way])
    environment = bench.portcullis(direct, name, sections)
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "\0serve\0" in command and command.split("\0")[3].endswith(f"/{name}.toml"):
            return environment, process
    raise SystemExit(f"{name} does not run")


def measure(environment: dict, process: pathlib.Path, mode: str, transactions: int) -> float:
    """Microseconds of the gateway's processor time for each transaction, or each connection."""
    if mode == "connections":
        options = ("-M", "simple", "-C", "-t", str(max(transactions // 30, 10)))
    else:
        options = ("-M", mode, "-t", str(transactions))
    before = used(process)
    said = run("pgbench", "-n", "-S", "-c", "4", "-j", "1", *options, env=environment,
               capture_output=True).stdout
    done = int(re.search(r"actually processed: (\d+)", said).group(1))
    return (used(process) - before) / 1000 / done


def used(process: pathlib.Path) -> int:
    """Nanoseconds that the threads of a process have run: clock ticks would be a sample of it."""
    total = 0
    for thread in (process / "task").iterdir():
        try:
            total += int((thread / "schedstat").read_text().split()[0])
        except OSError:
            pass  # It has ended.
    return total


main()
