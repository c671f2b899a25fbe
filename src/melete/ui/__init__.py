"""The lab in a browser: pages rendered on the server from the JSON of the API, live over one WebSocket a page."""
