"""Tests of the server and of the chat in the terminal."""
