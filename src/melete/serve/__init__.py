"""A URL for a model: an OpenAI-compatible server over the engine, with a chat page and a chat in the terminal."""
