"""Completion records: one for each member of an organization and each training video, and the progress made of them."""
