"""The backfill engine: set-based batches, one transaction each. A unit that fails is isolated in the failure ledger.

It depends on Postgres and not on Dagster. The I/O manager (`dagster/io_manager`) connects the two.
"""
