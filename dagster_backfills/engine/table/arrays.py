"""Passes long lists of keys to the server as one string. psycopg would inspect each element of a list."""

from collections.abc import Sequence


def text_array(keys: Sequence[str] | None) -> str | None:
    """Returns the keys as a literal of type `text[]`; None for None."""
    if not keys:
        return None if keys is None else "{}"
    joined = "\0".join(keys)  # text in Postgres never contains NUL, so it can separate the keys
    if "\\" in joined or '"' in joined:
        joined = joined.replace("\\", "\\\\").replace('"', '\\"')
    return '{"' + joined.replace("\0", '","') + '"}'
