"""A crew's tools for a database, a host and a service behind Portcullis.

They are ordinary SQLAlchemy, paramiko and requests. Of the gateway they know its addresses, that a
token stands where a password does, and how to say which run they belong to.
"""

from dataclasses import dataclass

import paramiko
import requests
from crewai.tools import BaseTool
from pydantic import PrivateAttr
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

MAX_ROWS = 50


@dataclass(frozen=True)
class Run:
    """What every session of one execution of the crew is filed under."""

    workflow: str
    id: str


class Database(BaseTool):
    name: str = "run_sql"
    description: str = "Runs one SQL statement on the shop's PostgreSQL database."
    _engine: Engine = PrivateAttr()

    def __init__(self, url: str, run: Run) -> None:
        super().__init__()
        self._engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            connect_args={"application_name": f"portcullis:{run.workflow}/{run.id}"},
        )

    def _run(self, statement: str) -> str:
        try:
            with self._engine.begin() as connection:
                result = connection.execute(text(statement))
                if not result.returns_rows:
                    return f"{result.rowcount} rows changed"
                return "\n".join(str(tuple(row)) for row in result.fetchmany(MAX_ROWS))
        except DBAPIError as error:
            # What the database or the gateway says; the model may try something else.
            return f"failed: {error.orig}"


class Host(BaseTool):
    name: str = "run_on_host"
    description: str = "Runs one command line on the shop's host."
    _connect: dict = PrivateAttr()
    _known_hosts: str = PrivateAttr()
    _environment: dict = PrivateAttr()

    def __init__(
        self, host: str, port: int, target: str, token: str, known_hosts: str, run: Run
    ) -> None:
        super().__init__()
        self._known_hosts = known_hosts
        self._connect = {
            "hostname": host,
            "port": port,
            "username": target,
            "password": token,
            "look_for_keys": False,
            "allow_agent": False,
        }
        self._environment = {"PORTCULLIS_WORKFLOW": run.workflow, "PORTCULLIS_RUN": run.id}

    def _run(self, line: str) -> str:
        with paramiko.SSHClient() as client:
            client.load_host_keys(self._known_hosts)
            client.connect(**self._connect)
            _, out, err = client.exec_command(line, environment=self._environment)
            text = out.read().decode() + err.read().decode()
            return f"exit status {out.channel.recv_exit_status()}\n{text}"


class Service(BaseTool):
    name: str = "ask_support"
    description: str = "Has the support service look a customer up, by number."
    _url: str = PrivateAttr()
    _session: requests.Session = PrivateAttr()

    def __init__(self, url: str, token: str, run: Run) -> None:
        super().__init__()
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.headers["X-Portcullis-Workflow"] = run.workflow
        self._session.headers["X-Portcullis-Run"] = run.id

    def _run(self, customer: str) -> str:
        asked = {"inputs": {"customer": customer}}
        begun = self._session.post(f"{self._url}/kickoff", json=asked, timeout=30)
        begun.raise_for_status()
        id = begun.json()["kickoff_id"]
        answer = self._session.get(f"{self._url}/status/{id}", timeout=30)
        answer.raise_for_status()
        return answer.json()["state"]
