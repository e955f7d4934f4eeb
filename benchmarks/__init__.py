"""Benchmarks, one per module: `python -m benchmarks.<name>`. All but `doors` print JSON as their last line."""
