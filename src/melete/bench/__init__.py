"""Proof: models, providers and agent harnesses compared on real sessions through the gateway."""
