"""Runs an example in a separate process, for tests that kill it or start two: `python -m … URL EXAMPLE`."""

import sys

from dagster_backfills_tests.components.adopting import EXAMPLES, adopter, load


def main() -> None:
    url, example = sys.argv[1:]
    with adopter(load(EXAMPLES / example), url, batch_units=1, target_seconds=0) as a:
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
        a.refresh("all")
        print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
