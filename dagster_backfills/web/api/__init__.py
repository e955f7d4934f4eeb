"""The HTTP API. Paths and field names are those of the five original systems."""
