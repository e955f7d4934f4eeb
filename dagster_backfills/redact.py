"""Passwords taken out of text before a person or a log sees it."""

import re


def redact(text: str) -> str:
    """The text without the passwords of the URLs and connection strings in it."""
    text = re.sub(r"(\w+:/{0,2}[^\s:/@]*:)[^\s@]+(?=@)", r"\1***", text)
    return re.sub(r"(?i)(password=)('[^']*'|[^\s&'\"]+)", r"\1***", text)
