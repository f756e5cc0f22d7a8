"""Metrics as pure functions, and the two evaluators that use them everywhere."""
