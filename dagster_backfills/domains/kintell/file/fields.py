"""The fields of one CSV record. Not here: where records begin and end."""


def split_fields(record: bytes) -> list[bytes]:
    """The fields of one record. Where its quoting is broken, as much of them as can be made out."""
    fields, at = [], 0
    while True:
        quoted = b""
        if record[at : at + 1] == b'"':
            close = _close(record, at + 1)
            quoted, at = record[at + 1 : close].replace(b'""', b'"'), close + 1
        comma = record.find(b",", at)
        end = comma if comma >= 0 else len(record)
        fields.append(quoted + record[at:end])
        if comma < 0:
            return fields
        at = comma + 1


def _close(record: bytes, at: int) -> int:
    while True:
        close = record.find(b'"', at)
        if close < 0:
            return len(record)
        if record[close + 1 : close + 2] != b'"':
            return close
        at = close + 2
