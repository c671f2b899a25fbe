"""Typed actions, the guard that judges them, the trace that keeps them, and the tools that carry them out."""
