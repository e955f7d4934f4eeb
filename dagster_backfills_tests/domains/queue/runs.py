"""Run a handler as a worker does, and inputs shared by the engine tests."""

from uuid import uuid4

from dagster_backfills.domains.queue.context import JobContext
from dagster_backfills.domains.queue.registry import background_job_types
from dagster_backfills.domains.queue.schemas import SopInput

PARTS = [
    "Welcome to the boiler room training. Open the valve slowly and check the pressure gauge. "
    "The pressure must stay below ten bar. Close the valve when the tank is full. "
    "If the pressure rises, open the relief valve at once.",
    "Next, we turn to the fire drill. When the alarm rings, leave the building by the nearest exit. "
    "Do not use the elevator. Gather at the assembly point in the car park. "
    "The fire warden counts everyone at the assembly point.",
    "Finally, let us look at reporting. Write every leak in the log book. Sign the log book page with your name. "
    "Send the form to your supervisor before the end of the shift. "
    "The supervisor must answer every report within one day.",
]
GIVEN = SopInput(title="Boiler *room*", transcript=" ".join(PARTS), duration=95.4)


def run(job_type, input_data):
    """Run the handler; returns its output and the progress that it reported."""
    kind, seen = background_job_types().get(job_type), []
    context = JobContext(
        uuid4(), job_type, 1, kind.parse(input_data), lambda p, m: seen.append((p, m)) or True
    )
    return kind.handler(context), seen
