"""An AutoGen agent, which practises unchanged: `build` is all that practice needs.

melete agents train --framework autogen --agent autogen_agent:build --base my-sft-run
python autogen_agent.py [MODEL]     # one task here, with a run of yours or with `echo`, which repeats what it hears
"""

import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient


def build(base_url, api_key, tools, system_prompt):
    """Makes the agent; `tools` are AutoGen tools."""
    model = OpenAIChatCompletionClient(
        model="policy",
        base_url=base_url,
        api_key=api_key,
        model_info={
            "vision": False,
            "function_calling": True,
            "json_output": False,
            "structured_output": False,
            "family": "unknown",
        },
    )
    return AssistantAgent(
        "clerk", model_client=model, tools=tools, system_message=system_prompt, max_tool_iterations=20
    )


if __name__ == "__main__":
    from melete.agents import frameworks
    from melete.agents.rehearsal import rehearse, told

    agent = frameworks.load("autogen").wrap_agent(build)
    print(told(*rehearse(agent, "customer_support", model=(sys.argv[1:] or ["echo"])[0])))
