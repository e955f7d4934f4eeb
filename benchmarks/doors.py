"""Load test of `backfills serve`: a hundred polling clients and twenty event streams while jobs come and go.

Prints the response times, and what was lost: failed requests, and events that a stream did not receive.

    python -m benchmarks.doors --seconds 60
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.jobs import database
from benchmarks.servers import as_writer, free_port
from dagster_backfills.postgres.embedded import resolve_database_url

TOKEN = "the-token-of-the-benchmark"
JOB = {"jobType": "sop_generation", "inputData": {"title": "T", "transcript": "Open it.", "duration": 1}}


@contextmanager
def served(url: str) -> Iterator[tuple[str, int]]:
    """Start the server. Yields its address and process ID."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {
            "DATABASE_URL": url, "JOBS_TOKEN": TOKEN, "BACKFILLS_HOME": home, "DAGSTER_HOME": "",
            "BACKFILLS_WEB_REQUESTS_PER_SECOND": "100000",
        }  # fmt: skip
        command = [str(Path(sys.executable).with_name("backfills")), "serve", "--port", str(port)]
        with (Path(home) / "serve.log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            while True:
                try:
                    httpx.get(f"{address}/health", timeout=60)
                    break
                except httpx.TransportError:
                    if process.poll() is not None:
                        raise
                    time.sleep(0.3)
            yield address, process.pid
        except httpx.TransportError:
            print((Path(home) / "serve.log").read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(30)


class Load:
    """The clients: they make the requests, and record response times, failures and received events."""

    def __init__(self, address: str, seconds: float) -> None:
        self.client = httpx.AsyncClient(
            base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60,
            limits=httpx.Limits(max_connections=500),
        )  # fmt: skip
        self.until = time.monotonic() + seconds
        self.times: list[float] = []
        self.failed = 0
        self.cancelled: set[str] = set()
        self.newest = ""

    async def write(self) -> None:
        """Enqueue a job and cancel it, ten times a second."""
        while time.monotonic() < self.until:
            job = (await self.client.post("/api/jobs", json=JOB)).json()["id"]
            self.newest = job
            await asyncio.sleep(0.1)
            await self.client.post(f"/api/jobs/{job}/cancel")
            self.cancelled.add(job)

    async def poll(self) -> None:
        """One client that requests the newest job once a second."""
        while time.monotonic() < self.until:
            if self.newest:
                began = time.monotonic()
                answer = await self.client.get(f"/api/jobs/{self.newest}")
                self.times.append(time.monotonic() - began)
                self.failed += answer.status_code != 200
            await asyncio.sleep(1)

    async def follow(self) -> set[str]:
        """One event stream. Returns the jobs whose end it received."""
        ended: set[str] = set()
        async with self.client.stream("GET", "/api/jobs/events") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    change = json.loads(line[6:])
                    if change.get("status") == "cancelled":
                        ended.add(change["id"])
                if time.monotonic() > self.until + 1 and ended >= self.cancelled:
                    break
                if time.monotonic() > self.until + 30:
                    break
        return ended

    async def run(self, polling: int, following: int) -> list[set[str]]:
        followers = [asyncio.create_task(self.follow()) for _ in range(following)]
        await asyncio.sleep(1)
        await asyncio.gather(self.write(), *[self.poll() for _ in range(polling)])
        # A last change lets the streams notice that the test is over.
        await asyncio.sleep(2)
        job = (await self.client.post("/api/jobs", json=JOB)).json()["id"]
        await self.client.post(f"/api/jobs/{job}/cancel")
        self.cancelled.add(job)
        return list(await asyncio.gather(*followers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--polling", type=int, default=100)
    parser.add_argument("--following", type=int, default=20)
    options = parser.parse_args()
    with database(resolve_database_url(), migrated=True) as url, served(as_writer(url)) as (address, pid):
        load = Load(address, options.seconds)
        received = asyncio.run(load.run(options.polling, options.following))
        memory = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]
    times = sorted(load.times)
    lost = sum(len(load.cancelled - each) for each in received)
    print(
        f"{len(times):,} responses to {options.polling} clients: median {statistics.median(times) * 1000:.0f} ms, "
        f"95 % within {times[int(len(times) * 0.95)] * 1000:.0f} ms; {load.failed} failed"
    )
    print(f"{len(load.cancelled):,} jobs ended; {len(received)} event streams missed {lost} events in total")
    print(f"peak memory of the server: {int(memory) // 1024:,} MB")


if __name__ == "__main__":
    main()
