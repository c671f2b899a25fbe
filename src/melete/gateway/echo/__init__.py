"""The scripted upstream: a provider of models without any model, that speaks OpenAI's and Anthropic's APIs.

People try the gateway with it, and tests use it as the provider behind the real proxy. It repeats what it is told, or
plays a script: text, tool calls, delays, errors, streams that are cut in the middle. Nothing leaves the machine.
"""
