"""Measures of whether an attack's failure means robustness: gradients, ascents, planted examples, this defence."""
