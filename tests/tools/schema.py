"""Holds configuration files against the JSON Schema of the configuration.

    python schema.py SCHEMA FILE...

Prints what is wrong with each, one a line; nothing when all are right.
"""

import json
import sys
import tomllib

import jsonschema_rs

with open(sys.argv[1]) as file:
    schema = json.load(file)
jsonschema_rs.meta.validate(schema)
validator = jsonschema_rs.Draft7Validator(schema)
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        written = tomllib.load(file)
    for error in validator.iter_errors(written):
        place = "/".join(map(str, error.instance_path))
        print(f"{path}: {place}: {error.message}")
