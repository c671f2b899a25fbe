"""An agent on the plain `openai` client, which practises unchanged: `build` is all that practice needs.

    melete agents train --framework openai --agent openai_agent:build --base my-sft-run
    python openai_agent.py [MODEL]      # one task here, with a run of yours or with `echo`, which repeats what it hears

`build` returns a function that is told what the person says and returns the answer.
"""

import json
import sys

from openai import OpenAI


def build(base_url, api_key, tools, system_prompt):
    """Makes the agent; `tools` have a name, a schema in OpenAI's form, and `call(arguments)`."""
    client = OpenAI(base_url=base_url, api_key=api_key)
    by_name = {tool.name: tool for tool in tools}
    messages = [{"role": "system", "content": system_prompt}]

    def answer(said):
        messages.append({"role": "user", "content": said})
        while True:
            completion = client.chat.completions.create(
                model="policy", messages=messages, tools=[tool.schema for tool in tools]
            )
            message = completion.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return message.content or ""
            for call in message.tool_calls:
                result = run(call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    def run(name, arguments):
        if name not in by_name:
            return f"error: there is no tool {name}"
        try:
            return by_name[name].call(json.loads(arguments))
        except json.JSONDecodeError as error:
            return f"error: {error}"

    return answer


if __name__ == "__main__":
    from melete.agents import frameworks
    from melete.agents.rehearsal import rehearse, told

    agent = frameworks.load("openai").wrap_agent(build)
    print(told(*rehearse(agent, "customer_support", model=(sys.argv[1:] or ["echo"])[0])))
