"""Tests of the server, the chat page and the chat in the terminal."""
