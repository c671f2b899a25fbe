"""A CrewAI agent, which practises unchanged: `build` is all that practice needs.

python tools/envs.py crewai                 # CrewAI's pins contradict ours, so it has an environment of its own
.envs/crewai/bin/melete agents train --framework crewai --agent crewai_agent:build --base my-sft-run
.envs/crewai/bin/python crewai_agent.py [MODEL]     # one task here; without a run, with a model that repeats
"""

import sys

from crewai import LLM, Agent


def build(base_url, api_key, tools, system_prompt):
    """Makes the agent; `tools` are CrewAI tools."""
    model = LLM(model="policy", custom_openai=True, base_url=base_url, api_key=api_key)
    return Agent(
        role="clerk", goal="Do what the person asks for.", backstory=system_prompt, llm=model, tools=tools
    )


if __name__ == "__main__":
    from melete.agents import frameworks
    from melete.agents.rehearsal import rehearse, told

    agent = frameworks.load("crewai").wrap_agent(build)
    print(told(*rehearse(agent, "customer_support", model=(sys.argv[1:] or ["echo"])[0])))
