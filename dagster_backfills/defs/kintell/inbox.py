"""Which files of the inbox are new and complete. A pure diff; the listing stands beside it."""

from dataclasses import dataclass

from dagster_backfills.defs.kintell.files import is_local, open_file

UNFINISHED = (".partial", ".part", ".tmp", ".crdownload", ".filepart")


@dataclass(frozen=True)
class Arrival:
    """A file in the inbox; `stamp` changes when the file does."""

    url: str
    stamp: str


def list_inbox(url: str) -> list[Arrival]:
    """The files in the inbox itself, by name. Hidden ones and those named as unfinished are none."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    if not fs.exists(path):
        return []
    found = []
    for info in sorted(fs.ls(path, detail=True), key=lambda each: each["name"]):
        name = info["name"].rstrip("/").rsplit("/", 1)[-1]
        if info["type"] == "file" and not name.startswith(".") and not name.lower().endswith(UNFINISHED):
            full = info["name"] if is_local(fs) else fs.unstrip_protocol(info["name"])
            source = open_file(full, [url])
            found.append(Arrival(source.url, source.stamp()))
    return found


def settle(
    listing: list[Arrival], before: dict[str, list[str]]
) -> tuple[list[Arrival], dict[str, list[str]]]:
    """Files that are new and have stood still since the last look, and what to remember: stamp and state by URL."""
    ready, after = [], {}
    for arrival in listing:
        stamp, state = before.get(arrival.url, ["", ""])
        if stamp != arrival.stamp:
            state = "growing"
        elif state == "growing":
            ready.append(arrival)
            state = "taken"
        after[arrival.url] = [arrival.stamp, state]
    return ready, after
