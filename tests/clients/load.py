"""Sends numbered statements in every way that psycopg has, until its connection ends; prints a
line for each round of them. The numbers have 15 digits, so that they are found wherever they are
written: `load.py FIRST`."""

import itertools
import sys

import psycopg

numbers = itertools.count(int(sys.argv[1]))


def number() -> str:
    return str(next(numbers))


try:
    with psycopg.connect(autocommit=True) as connection:
        for turn in itertools.count():
            connection.execute(f"select {number()}")
            connection.execute("select %s::text", (number(),))
            connection.execute("select %s::text as prepared", (number(),), prepare=True)
            connection.execute(f"select {number()}; select {number()}")
            with connection.pipeline():
                for _ in range(10):
                    connection.execute("select %s::text", (number(),))
            with connection.transaction():
                connection.execute("insert into load values (%s::int8)", (number(),))
                with connection.cursor().copy("copy load from stdin") as copy:
                    for _ in range(10):
                        copy.write(number() + "\n")
            print(turn, flush=True)
except psycopg.Error:
    pass
