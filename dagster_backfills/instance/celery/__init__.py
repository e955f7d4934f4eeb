"""Runs on several machines: Celery's app for the workers, and the launcher that hands runs to them.

Needs the extra `celery`; nothing else imports this package.
"""
