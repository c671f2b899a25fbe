"""Names of the environment variables through which our supervisor speaks to the hook inside LiteLLM's process.

Read by files that are loaded in LiteLLM's own Python, so it holds names only and imports nothing. The values are set
by `melete.gateway.supervise` for that one child and stand in no file.
"""

from __future__ import annotations

DATABASE = "MELETE_GATEWAY_DATABASE"
"""URL of our database: `sqlite:///…` or `postgresql://…`; its schema is the newest one before LiteLLM starts."""
SPOOL = "MELETE_GATEWAY_SPOOL"
"""Folder of the spool."""
SCRAPE_KEY_HASH = "MELETE_GATEWAY_SCRAPE_KEY_HASH"
"""sha256 hex of the key that may read `/metrics` and nothing else; the key stands in `gateway/scrape.key`."""
WARM_KEY_HASH = "MELETE_GATEWAY_WARM_KEY_HASH"
"""sha256 hex of the key of the warm-up: it may call the model `WARM_MODEL` only, and none of its calls is recorded.

A new key is made for each start of LiteLLM; only the supervisor knows it.
"""
WARM_MODEL = "melete-warm-up"
"""Public name of the model that the warm-up calls; no session's allow-list may hold it."""
MASTER_KEY = "MELETE_GATEWAY_MASTER_KEY"
"""LiteLLM's master key, random for each start; our auth does not accept it."""
CONTENT = "MELETE_GATEWAY_CONTENT"
"""Folder of the content spool, used only where a session's policy allows content."""
LISTEN_FD = "MELETE_GATEWAY_LISTEN_FD"
"""Number of the listening socket that LiteLLM inherits."""
