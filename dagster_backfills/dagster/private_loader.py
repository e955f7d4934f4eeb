"""Uses of non-public names of Dagster's definitions loader. Not here: all other non-public names (`private`)."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg


@contextmanager
def replacing_broken(replacement: Callable[[Path, Exception], dg.Component | None]) -> Iterator[None]:
    """In this block, Dagster loads `replacement(path, error)` for what fails to load. If that is None, it raises."""
    try:
        loader = importlib.import_module("dagster.components.core.decl")
        stock, wrapped = loader.build_filesystem_component_decl_from_context, loader.ComponentLoaderDecl
    except (ImportError, AttributeError) as missing:
        message = f"A mistake in one defs.yaml keeps all from loading: this Dagster version lacks a name ({missing})."
        warnings.warn(message, stacklevel=2)
        yield
        return

    def build(context: Any) -> Any:
        try:
            return stock(context)
        except Exception as error:
            component = replacement(context.path, error)
            if component is None:
                raise
            return wrapped(context=context, loc=context.component_loc, component_node_fn=lambda _: component)

    vars(loader)["build_filesystem_component_decl_from_context"] = build
    try:
        yield
    finally:
        vars(loader)["build_filesystem_component_decl_from_context"] = stock
