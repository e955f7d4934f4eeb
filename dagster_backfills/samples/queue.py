"""Three jobs for the demonstration: transcripts that become procedures, by the engine that needs no account."""

import psycopg

from dagster_backfills.domains.queue.queue import enqueue_many

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
    """Enqueue them where the queue has never had a job; says what is there."""
    row = conn.execute("select count(*) from jobs.background_jobs").fetchone()
    if row and row[0]:
        return f"{row[0]:,} background jobs are there already."
    inputs = [{"title": title, "transcript": text, "duration": 90.0} for title, text in _STEPS.items()]
    return f"Enqueued {len(enqueue_many(conn, 'sop_generation', inputs))} background jobs."
