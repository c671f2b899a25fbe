"""Agents: scenarios with tools, practice until tool calls succeed, adapters to frameworks, deployment.

A scenario is a file in `scenarios/`, a hub one in `hubs/`, a framework adapter one in `frameworks/`. `scenario.py` holds what
a scenario is, `environment.py` plays it under its guard, `train.py` practises it.
"""
