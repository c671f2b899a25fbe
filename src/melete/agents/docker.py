"""Writes a deployed version as a folder that starts on another machine, with Docker or without.

    FOLDER/Dockerfile            builds an image that serves the agent
           requirements.txt      what the server needs, with the versions of this machine
           start.sh              serves it; needs Python with those packages, and nothing of this machine
           app/melete/           this Melete
           home/deployments/…    the version with its weights, its guard and its prompt
           README.md

The weights go in without the optimizer's state, are compared with their digest first, and again when they are loaded.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import shutil
import stat
import sys
from pathlib import Path

import melete
from melete.actions.guard import Guard
from melete.errors import DeploymentError
from melete.runs.folder import storage_error
from melete.serve import deployment
from melete.serve.deployment import Deployment
from melete.settings import Settings

EXTRAS = ("train", "serve", "agents")
PORT = 8675

DOCKERFILE = """\
# {id}: an agent with its guard, served at port {port}. Build: docker build -t {name}:{version} .
# Run: docker run -p {port}:{port} -e MELETE_TOKEN=SECRET {name}:{version}
FROM python:{python}-slim
WORKDIR /agent
RUN pip install --no-cache-dir torch=={torch} --index-url https://download.pytorch.org/whl/cpu
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --create-home agent && chown -R agent /agent
USER agent
ENV HOST=0.0.0.0 PORT={port}
EXPOSE {port}
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/health')"
CMD ["sh", "start.sh"]
"""

START = """\
#!/bin/sh
# Serves {id} at http://$HOST:$PORT; anything but loopback needs MELETE_TOKEN. PYTHON names the interpreter.
here=$(cd "$(dirname "$0")" && pwd)
export MELETE_HOME="$here/home" PYTHONPATH="$here/app" PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "${{PYTHON:-python}}" -m melete serve --agent {name} --host "${{HOST:-127.0.0.1}}" --port "${{PORT:-{port}}}"
"""

README = """\
# {id}

An agent that practised `{scenario}`, with its prompt, tools and guard. It was made of {source}.

With Docker:

    docker build -t {name}:{version} .
    docker run -p {port}:{port} -e MELETE_TOKEN=SECRET {name}:{version}

Without, on Python {python}:

    pip install -r requirements.txt
    sh start.sh                        # http://127.0.0.1:{port}; HOST, PORT and PYTHON change that

Then:

    curl http://127.0.0.1:{port}/v1/agents/{name}
    curl http://127.0.0.1:{port}/v1/agents/{name}/act -d '{{"observation": "Hello"}}'

and `http://127.0.0.1:{port}/v1` is an OpenAI-compatible API whose model is `{name}`. With MELETE_TOKEN set, send
`Authorization: Bearer SECRET`. What the agent proposed and what the guard said stands in
`home/deployments/{name}/traces/`.

It is done well when:

{criteria}
"""


def write(settings: Settings, ref: str, folder: Path) -> Deployment:
    """Writes a deployed version into a new folder.

    Args:
        settings: where deployments are.
        ref: `<name>_v<version>`, or a name for the version in use.
        folder: must not exist, or be empty.

    Raises:
        DeploymentError: no such version, weights that are not those that were deployed, or a folder with content.
        CheckpointError: a file of the checkpoint is corrupt.
        StorageError: it cannot be written; nothing is left behind.
    """
    made = deployment.load(settings, ref)
    made.verify()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DeploymentError(f"{folder} exists and is not empty.", next_step="Name another with --out.")
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        _write_all(temporary, made)
        if folder.exists():
            folder.rmdir()
        os.rename(temporary, folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return made


def requirements(extras: tuple[str, ...] = EXTRAS) -> list[str]:
    """What Melete needs with these extras, and what that needs, pinned to the versions that are installed here."""
    from packaging.requirements import Requirement

    pinned: dict[str, str] = {}
    waiting = [("melete", extra) for extra in ("", *extras)]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        for text in importlib.metadata.requires(name) or ():
            one = Requirement(text)
            if one.marker is not None and not one.marker.evaluate({"extra": extra}):
                continue
            try:
                found = importlib.metadata.version(one.name)
            except importlib.metadata.PackageNotFoundError:
                continue
            key = re.sub(r"[-_.]+", "-", one.name).lower()
            if key != "melete":
                pinned[key] = found.partition("+")[0]
            for wanted in ("", *one.extras):
                if (key, wanted) not in seen:
                    seen.add((key, wanted))
                    waiting.append((key, wanted))
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]


def _write_all(target: Path, made: Deployment) -> None:
    home = target / "home" / "deployments" / made.name
    guard = Guard.from_dict(made.guard, f"guard of {made.id}")
    # Elsewhere it is known by its digest; the path of this machine says nothing there.
    plain = dataclasses.replace(made, source=Path(made.source).name)
    deployment.write_to(home / f"v{made.version}", _with_weights(plain), guard, copy_weights=True)
    history = f'{{"version": "{made.version}", "history": ["{made.version}"]}}\n'
    (home / "active.json").write_text(history, encoding="utf-8")
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(Path(melete.__file__).parent, target / "app" / "melete", ignore=ignored)
    pinned = requirements()
    torch = next((line.partition("==")[2] for line in pinned if line.startswith("torch==")), "2.13.0")
    words = {
        "id": made.id, "name": made.name, "version": made.version, "port": PORT, "scenario": made.scenario,
        "source": plain.source, "python": f"{sys.version_info.major}.{sys.version_info.minor}", "torch": torch,
        "criteria": "\n".join(f"- {one['name']}: {one['description']}" for one in made.criteria),
    }  # fmt: skip
    texts = {
        "Dockerfile": DOCKERFILE.format(**words),
        "start.sh": START.format(**words),
        "README.md": README.format(**words),
        "requirements.txt": "\n".join(pinned) + "\n",
        ".dockerignore": "home/deployments/*/traces\n",
    }
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")
    start = target / "start.sh"
    start.chmod(start.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _with_weights(made: Deployment) -> Deployment:
    """The deployment with the absolute folder of its weights."""
    return made if made.weights is None else dataclasses.replace(made, model=str(made.weights.resolve()))
