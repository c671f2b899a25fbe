"""Writes each row that LiteLLM would put into LiteLLM_SpendLogs to a file; loaded by LiteLLM beside its config.

The rows are made by LiteLLM's own tracker and writer; only the last step, which needs Prisma's engine, is replaced.
"""

import json
import os

from litellm.proxy.db.db_spend_update_writer import DBSpendUpdateWriter
from litellm.proxy.hooks.proxy_track_cost_callback import ProxyDBLogger


async def keep(self, payload, prisma_client=None, **_):
    with open(os.environ["SPEND_LOG_TAP"], "a", encoding="utf-8") as file:
        file.write(json.dumps(payload, default=str) + "\n")
    return prisma_client


DBSpendUpdateWriter._insert_spend_log_to_db = keep
tap = ProxyDBLogger()
