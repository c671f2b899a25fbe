"""What is going on, as it happens: one WebSocket a page, any GET path a topic, one poll for all who watch it."""
