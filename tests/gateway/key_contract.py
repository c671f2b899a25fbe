"""Answers `/key/generate` and `/key/delete` with LiteLLM's own request and response classes; run in LiteLLM's Python.

It holds what a LiteLLM with a database would hold of a key, in memory: a wrong field, a missing one or a wrong type is
refused by the classes themselves. Prints its port, serves until stdin ends. `GET /keys` shows what it holds.
"""

import json
import os
import sys
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from litellm.litellm_core_utils.duration_parser import duration_in_seconds
from litellm.proxy._types import GenerateKeyRequest, GenerateKeyResponse, KeyRequest
from pydantic import ValidationError

ADMIN = "Bearer sk-admin-of-the-contract"
KEYS: dict[str, dict] = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, KEYS)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != ADMIN:
            return self.answer(401, {"error": {"message": "Authentication Error", "code": "401"}})
        try:
            made = {"/key/generate": generate, "/key/delete": remove}[self.path](body)
        except ValidationError as error:
            return self.answer(422, {"detail": error.errors(include_url=False)})
        return self.answer(*made)

    def answer(self, status, document):
        data = json.dumps(document, default=str).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def generate(body):
    unknown = set(body) - set(GenerateKeyRequest.model_fields)
    if unknown:
        return 422, {"detail": f"no such fields: {sorted(unknown)}"}
    asked = GenerateKeyRequest(**body)
    if asked.key_alias in {held["key_alias"] for held in KEYS.values()}:
        return 400, {"error": {"message": f"Key with alias '{asked.key_alias}' already exists."}}
    assert asked.key.startswith("sk-")
    hashed = sha256(asked.key.encode()).hexdigest()
    expires = datetime.now(UTC) + timedelta(seconds=duration_in_seconds(asked.duration))
    KEYS[hashed] = {**asked.model_dump(exclude_none=True, exclude={"key"}), "expires": expires}
    told = asked.model_dump(
        exclude_none=True, include={"key", "key_alias", "models", "metadata", "max_budget"}
    )
    return 200, json.loads(
        GenerateKeyResponse(**told, token_id=hashed, expires=expires).model_dump_json(exclude_none=True)
    )


def remove(body):
    asked = KeyRequest(**body)
    hashes = [sha256(key.encode()).hexdigest() if key.startswith("sk-") else key for key in asked.keys]
    if any(hashed not in KEYS for hashed in hashes):
        return 404, {"error": {"message": "No keys found", "code": "404"}}
    for hashed in hashes:
        KEYS.pop(hashed)
    return 200, {"deleted_keys": asked.keys}


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(server.server_port, flush=True)
server.serve_forever()
