"""Types of one's own, as an application would write them."""

from pydantic import BaseModel, Field

from dagster_backfills import JobContext, job_type


class InvoiceInput(BaseModel):
    """`lines`: amounts in cents."""

    customer: str
    lines: list[int] = Field(min_length=1)
    note: str | None = None


class Invoice(BaseModel):
    """What was billed."""

    customer: str
    total: int


class LetterInput(BaseModel):
    """A letter about an invoice."""

    customer: str
    total: int


@job_type(InvoiceInput, Invoice, timeout=60, max_retries=5, observed=True)
def make_invoice(job: JobContext[InvoiceInput]) -> Invoice:
    """In a process of its own."""
    job.progress(50, "adding up")
    return Invoice(customer=job.input.customer, total=sum(job.input.lines))


@job_type(LetterInput, name="write_letter", isolation="thread")
def letter(job: JobContext[LetterInput]) -> dict[str, str]:
    """In a thread."""
    return {"text": f"Dear {job.input.customer}, you owe {job.input.total}."}
