"""A bench folder of its own for a test, whose harness is a few lines of Python that need no gateway."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from melete.bench import session
from melete.bench.session import Opened, Plan
from melete.settings import Settings

FILES = {
    "providers/here.yaml": "kind: openai\nbase_url: http://127.0.0.1:9/v1\nmodels: {small: {}, large: {}}\n",
    "harness_profiles/worker.yaml": (
        "description: Writes what it is told.\nmode: command\n"
        'environment: {OPENAI_BASE_URL: "{base_url}/v1", OPENAI_API_KEY: "{key}", OPENAI_MODEL: "{model}"}\n'
        "unset: [OPENAI_ORGANIZATION]\n"
        'files: {settings.json: {text: \'{"model": "{model}", "key": "{key}"}\'}}\n'
        f"command: [{sys.executable}, -c, \"import sys; open('answer.txt', 'w').write(sys.argv[1])\", \"{{prompt}}\"]\n"
        f"version_command: [{sys.executable}, --version]\n"
        'status: {state: tried, version: "1", date: "2026-11-20"}\n'
    ),
    "variants/one.yaml": "harness_profile: worker\nprovider: here\nmodel: small\nparameters: {temperature: 0}\n",
    "variants/two.yaml": "harness_profile: worker\nprovider: here\nmodel: large\n",
    "task_cards/say.yaml": (
        "prompt: forty-two\nfiles: {README.md: Say it., src/a.py: 'x = 1'}\n"
        "checker: {expected_text: {text: forty-two, file: answer.txt}}\n"
    ),
    "task_cards/open.yaml": "prompt: Whatever you like.\n",
    "task_cards/desk.yaml": "scenario: {name: customer_support, split: held_out, count: 3, start: 10}\n",
    "experiments/both.yaml": (
        "variants: [one, two]\ntask_cards: [say, desk]\nattempts: 2\n"
        "limits: {timeout_s: 30, max_requests: 4, budget_usd: 0.5}\n"
    ),
}


def write(folder: Path, **changed: str) -> Path:
    """Writes the files, some of them changed: `variants_one="…"` for `variants/one.yaml`."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changed.pop(name.removesuffix(".yaml").replace("/", "_"), text), encoding="utf-8")
    assert not changed, f"no such file: {sorted(changed)}"
    return folder


def settings_with(home: Settings, folder: Path, **changed: str) -> Settings:
    """Settings whose bench folder holds these files."""
    return dataclasses.replace(home, bench_folder=write(folder / "bench", **changed))


def start(settings: Settings, variant: str = "one", task: str = "say", **plan: object) -> Opened:
    """Opens a session as if a gateway were up."""
    return session.start(settings, Plan(variant, task, **plan), "http://127.0.0.1:9")  # type: ignore[arg-type]
