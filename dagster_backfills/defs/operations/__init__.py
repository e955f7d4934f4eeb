"""What operators see over all domains: the history of runs, and word of the ones that failed."""
