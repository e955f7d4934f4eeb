"""Where in its files a declaration says what: the file and the line, for messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Places:
    """The places of one `defs.yaml`."""

    file: Path

    @cached_property
    def _root(self) -> yaml.Node | None:
        if not self.file.is_file():
            return None
        return next(yaml.compose_all(self.file.read_text(encoding="utf-8")), None)

    def of(self, *path: str | int) -> str:
        """The file, and the line of an attribute: `of("tables", 0, "query")`; else of what it would be in."""
        node, line = self._root, None
        for step in ("attributes", *path):
            found = _step(node, step)
            if found is None:
                break
            line, node = found
        return f"{self.file}" if line is None else f"{self.file}, line {line}"


def _step(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


def name_of(path: Sequence[str | int]) -> str:
    """The attribute as people write it: `tables[0].query`."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path).lstrip(".")
