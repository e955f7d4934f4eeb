"""Runs on several machines: the Celery app for the workers, and the run launcher that sends runs to them.

Requires the extra `celery`. No other package imports this one.
"""
