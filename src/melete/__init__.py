"""Melete: a lab on one machine in which models practise acting and prove that they got better."""

__version__ = "0.1.0"
