"""Completion records for each member of an organization and each training video, and the resulting progress."""
