"""Kinds of topics that send increments in place of whole answers: one file each, found by its name."""
