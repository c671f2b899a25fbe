"""Uvicorn's WebSockets, where an application may also drop a connection whose other end has stopped to read.

Closing such a connection waits for what was written to be read, which may be for ever: it would hold its memory and its
place. `scope["extensions"]` has `melete.drop(code, reason)`, which tells the other end why, gives it a few seconds to
notice, and ends the connection. Needs websockets (extra `ui`); without it the server takes no WebSocket.
"""

from __future__ import annotations

from typing import cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

NOTICE_S = 5.0


class WebSockets(WebSocketsSansIOProtocol):
    """See uvicorn."""

    async def run_asgi(self) -> None:
        """See uvicorn."""
        cast(dict[str, object], self.scope["extensions"])["melete.drop"] = self.drop
        await super().run_asgi()

    def drop(self, code: int, reason: str) -> None:
        """Ends the connection with a code and a reason, whether the other end reads or not."""
        if self.disconnected or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
        self.loop.call_later(NOTICE_S, self.transport.abort)
