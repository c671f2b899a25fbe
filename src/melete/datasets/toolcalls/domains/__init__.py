"""Domains of the tool-calling generator: each file has `need(draw) -> Need` and, for several steps, `chain(draw)`."""
