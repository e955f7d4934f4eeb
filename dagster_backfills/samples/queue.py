"""Demo data of the queue: three `sop_generation` jobs."""

import psycopg
from psycopg import sql

from dagster_backfills.domains.queue.queue import enqueue_many
from dagster_backfills.samples.loading import has_rows

_STEPS = {
    "Starting the boiler": (
        "First open the main valve slowly. Check the pressure gauge before anything else. The pressure must stay below "
        "ten bar. Then press the green button and wait for two minutes. If the lamp turns red, stop at once."
    ),
    "Closing the shop": (
        "Count the cash drawer twice. Write the total into the log book. Lock the back door first. Then switch off the "
        "lights in every room. Set the alarm and leave by the front door within one minute."
    ),
    "Onboarding a customer": (
        "Greet the customer and ask for the contract number. Check the address in the system. Explain the first invoice"
        " line by line. Never promise a date that the calendar does not show. Send the summary the same day."
    ),
}


def load_demo(conn: psycopg.Connection) -> str:
    """Enqueue the jobs if the queue is empty. Returns a message."""
    if has_rows(conn, sql.Identifier("jobs", "background_jobs")):
        return "The tables of the queue domain have rows: no sample data was loaded."
    inputs = [{"title": title, "transcript": text, "duration": 90.0} for title, text in _STEPS.items()]
    return f"Enqueued {len(enqueue_many(conn, 'sop_generation', inputs))} background jobs."
