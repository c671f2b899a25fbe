"""The gateway: one LiteLLM proxy as a child process, a credential for each session, and what passed through it."""
