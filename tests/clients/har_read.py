"""Reads HAR files as strictly as their schema allows, and says how many entries there are."""

import base64
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema_rs

SCHEMA = Path(__file__).parent.parent / "cases/har-1.2.schema.json"
validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()), validate_formats=True)

for name in sys.argv[1:]:
    text = Path(name).read_text(encoding="utf-8")
    assert all(c.isprintable() or c in "\n" for c in text), "a character acts or is not seen"
    har = json.loads(text)
    validator.validate(har)
    assert har["log"]["version"] == "1.2"
    for entry in har["log"]["entries"]:
        assert urlsplit(entry["request"]["url"]).hostname
        timings = entry["timings"]
        parts = [timings[part] for part in ("blocked", "dns", "connect", "send", "wait", "receive")]
        spent = sum(part for part in parts if part != -1)
        assert abs(spent - entry["time"]) < 0.01, (spent, entry["time"])
        content = entry["response"]["content"]
        if content.get("encoding") == "base64":
            base64.b64decode(content["text"], validate=True)
    print(len(har["log"]["entries"]))
