"""An S3-compatible server (moto) with one bucket, `recordings`; its port is told in a line of JSON."""

import json
import logging
import sys
import urllib.request

from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
bucket = urllib.request.Request(f"http://127.0.0.1:{port}/recordings", method="PUT")
urllib.request.urlopen(bucket).read()
print(json.dumps({"port": port}), flush=True)
sys.stdin.read()
