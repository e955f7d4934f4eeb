"""Units worked set-based, in batches that commit one by one; what fails stands alone in the ledger.

Knows Postgres and nothing of Dagster: the I/O manager brings the two together.
"""
