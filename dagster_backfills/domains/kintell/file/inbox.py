"""Lists the inbox and finds files that are new and complete."""

from dataclasses import dataclass, field

from dagster_backfills.domains.kintell.file.files import FileError, open_file, open_place, place_of, readable

UNFINISHED = (".partial", ".part", ".tmp", ".crdownload", ".filepart")


@dataclass
class InboxListing:
    """The files in the inbox by URL, each with its stamp, and the reasons why others can't be imported."""

    files: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def list_inbox(url: str) -> InboxListing:
    """The files directly in the inbox, by name. Skips hidden files, links, lock files of spreadsheet programs (`~$…`)
    and unfinished downloads. Raises `FileError` if the folder can't be listed."""
    place = place_of(url)
    fs, path = open_place(place)
    fs.invalidate_cache()
    try:
        with readable(f"The inbox {url}"):
            entries = sorted(fs.ls(path, detail=True), key=lambda each: each["name"])
    except FileError as error:
        if not place.is_local and isinstance(error.__cause__, FileNotFoundError):
            return InboxListing()  # an object store has no empty folders
        raise FileError(error.message, "Create it, or correct KINTELL_INBOX or its permissions.") from error
    listing = InboxListing()
    for info in entries:
        name = info["name"].rstrip("/").rsplit("/", 1)[-1]
        ignored = name.startswith((".", "~$")) or name.lower().endswith(UNFINISHED)
        if info["type"] != "file" or ignored:
            continue
        try:
            source = open_file(f"{str(place).rstrip('/')}/{name}", [url])
            listing.files[source.url] = source.stamp()
        except (FileError, OSError) as error:
            listing.problems.append(str(error))
    return listing


def complete_files(
    files: dict[str, str], cursor: dict[str, list[str]]
) -> tuple[list[str], dict[str, list[str]]]:
    """The URLs of files that are new and have not changed since the last check, and the next cursor: stamp and state
    by URL."""
    complete, next_cursor = [], {}
    for url, found in files.items():
        stamp, state = cursor.get(url, ["", ""])
        if stamp != found:
            state = "growing"
        elif state == "growing":
            complete.append(url)
            state = "taken"
        next_cursor[url] = [found, state]
    return complete, next_cursor
