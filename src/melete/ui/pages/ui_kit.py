"""The kit: every component of the pages once, to look at in both themes; not in the navigation."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui.app import Ui
from melete.ui.page import Page

PAGE = Page("UI kit", "/ui-kit", icon="sliders", summary="All components of these pages, for who adds one.")
STATES = (
    "running", "queued", "waiting", "paused", "stopping", "succeeded", "failed", "stopped", "lost", "live",
    "ok", "error",
)  # fmt: skip
MARKDOWN = """## What came out

A **bold** claim needs an interval: 97.1 % (95.2 to 98.4), see `eval.json`.

- one
- [two](/runs)

| split | success |
|---|---|
| held out | 0.83 |

```python
print("practice")
```
"""


def routes(ui: Ui) -> APIRouter:
    """The page, and answers that its buttons ask for."""
    router = APIRouter()

    @router.get(PAGE.path)
    async def kit(request: Request) -> Response:
        now_s = time.time()
        ages_s = [now_s - 4, now_s - 400, now_s - 40_000]
        return ui.page(request, "ui_kit/kit.html", states=STATES, markdown_text=MARKDOWN, ages_s=ages_s)

    @router.get("/parts/ui-kit/said")
    async def said(request: Request) -> Response:
        return ui.part(request, "ui_kit/_said.html")

    @router.get("/parts/ui-kit/clock")
    async def clock(request: Request) -> Response:
        return ui.part(request, "ui_kit/_clock.html", said=time.strftime("%H:%M:%S"))

    return router
