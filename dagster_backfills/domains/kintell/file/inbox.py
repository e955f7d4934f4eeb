"""Which files of the inbox are new and complete. A pure diff; the listing stands beside it."""

from dataclasses import dataclass, field

from dagster_backfills.domains.kintell.file.files import FileError, open_file, open_place, place_of, readable

UNFINISHED = (".partial", ".part", ".tmp", ".crdownload", ".filepart")


@dataclass(frozen=True)
class Arrival:
    """A file in the inbox; `stamp` changes when the file does."""

    url: str
    stamp: str


@dataclass
class Listing:
    """The files in the inbox, and why others there can't be imported."""

    arrivals: list[Arrival] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_inbox(url: str) -> Listing:
    """What lies in the inbox itself, by name. Hidden files, links, what a spreadsheet program puts beside an
    open workbook (`~$…`), and files named as unfinished are none.

    Raises `FileError` where the folder can't be listed.
    """
    place = place_of(url)
    fs, path = open_place(place)
    fs.invalidate_cache()
    try:
        with readable(f"The inbox {url}"):
            entries = sorted(fs.ls(path, detail=True), key=lambda each: each["name"])
    except FileError as error:
        if not place.is_local and isinstance(error.__cause__, FileNotFoundError):
            return Listing()  # a store has no empty folders
        raise FileError(error.message, "Create it, or correct KINTELL_INBOX or its rights.") from error
    found = Listing()
    for info in entries:
        name = info["name"].rstrip("/").rsplit("/", 1)[-1]
        if (
            info["type"] == "file"
            and not name.startswith((".", "~$"))
            and not name.lower().endswith(UNFINISHED)
        ):
            try:
                source = open_file(f"{str(place).rstrip('/')}/{name}", [url])
                found.arrivals.append(Arrival(source.url, source.stamp()))
            except (FileError, OSError) as error:
                found.problems.append(str(error))
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
