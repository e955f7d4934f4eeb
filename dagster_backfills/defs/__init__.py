"""One folder per domain, and the resources that they share. No domain imports another."""
