"""Domains of the tool-calling generator; each file has `need(draw) -> Need` and, where steps build on each other, `chain(draw)`."""
