"""The lab in a terminal: the live picture of the web pages over SSH, a client of `/api/v1` and its WebSocket."""
