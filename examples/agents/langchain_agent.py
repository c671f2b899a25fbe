"""A LangChain agent, which practises unchanged: `build` is all that practice needs.

    melete agents train --framework langchain --agent langchain_agent:build --base my-sft-run
    python langchain_agent.py [MODEL]   # one task here, with a run of yours or with `echo`, which repeats what it hears

`build` returns what `create_agent` returns, or any graph of LangGraph whose state has `messages`.
"""

import sys

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def build(base_url, api_key, tools, system_prompt):
    """Makes the agent; `tools` are LangChain tools."""
    model = ChatOpenAI(base_url=base_url, api_key=api_key, model="policy")
    return create_agent(model, tools, system_prompt=system_prompt)


if __name__ == "__main__":
    from melete.agents import frameworks
    from melete.agents.rehearsal import rehearse, told

    agent = frameworks.load("langchain").wrap_agent(build)
    print(told(*rehearse(agent, "customer_support", model=(sys.argv[1:] or ["echo"])[0])))
