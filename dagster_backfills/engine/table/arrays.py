"""Long lists of keys on their way to the server, as one string: psycopg would look at each element of a list."""

from collections.abc import Sequence


def text_array(keys: Sequence[str] | None) -> str | None:
    """The keys as Postgres reads a `text[]`, to be bound in their place."""
    if not keys:
        return None if keys is None else "{}"
    joined = "\0".join(keys)  # no key of a database holds a NUL, so that it tells two keys apart
    if "\\" in joined or '"' in joined:
        joined = joined.replace("\\", "\\\\").replace('"', '\\"')
    return '{"' + joined.replace("\0", '","') + '"}'
