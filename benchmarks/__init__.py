"""Benchmarks, one module each; run as `python -m benchmarks.<name>`. The last line printed is one JSON object."""
