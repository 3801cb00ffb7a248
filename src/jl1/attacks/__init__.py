"""Attacks: pure functions from inputs to adversarial inputs, one a file."""
