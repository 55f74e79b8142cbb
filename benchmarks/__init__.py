"""Benchmarks: each a module with a main, run by scripts/bench."""
