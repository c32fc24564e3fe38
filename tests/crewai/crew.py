"""The crew: crew.py QUICKSTART_JSON MODEL_URL RUN. Prints what its tasks came to, as JSON."""

import json
import sys

import loopback_only  # before anything that might connect
from crewai import LLM, Agent, Crew, Process, Task

from tools import Database, Host, Run, Service


def main(state_file: str, model: str, run_id: str) -> None:
    with open(state_file) as file:
        state = json.load(file)
    token, ssh = state["tokens"]["agent"], state["ssh"]
    run = Run("support", run_id)
    database = Database(state["postgres"]["url"], run)
    host = Host(ssh["host"], ssh["port"], ssh["user"], token, ssh["known_hosts"], run)
    service = Service(state["http"]["url"], token, run)

    llm = LLM(model="openai/scripted", base_url=model, api_key="none", custom_openai=True)
    analyst = Agent(
        role="analyst",
        goal="Know the customers",
        backstory="Reads and never writes.",
        tools=[database, service],
        llm=llm,
    )
    operator = Agent(
        role="operator",
        goal="Keep orders right",
        backstory="Repairs what is wrong.",
        tools=[database, host],
        llm=llm,
    )
    read = Task(
        description="TASK-READ: look at the customers and the orders.",
        expected_output="what was found",
        agent=analyst,
    )
    repair = Task(
        description="TASK-REPAIR: mark order 4 as paid, and look at the host.",
        expected_output="what was done",
        agent=operator,
    )
    crew = Crew(agents=[analyst, operator], tasks=[read, repair], process=Process.sequential)
    done = crew.kickoff()
    outputs = [task.raw for task in done.tasks_output]
    print(json.dumps({"tasks": outputs, "refused": loopback_only.refused}))


main(*sys.argv[1:])
