"""Dagster's loader of definitions, by names that it does not publish: as in `private`, for loading alone."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg


@contextmanager
def standing_in(instead: Callable[[Path, Exception], dg.Component | None]) -> Iterator[None]:
    """While this lasts, Dagster takes what `instead` gives for a file or folder that it can't load; None raises."""
    try:
        loader = importlib.import_module("dagster.components.core.decl")
        stock, wrapped = loader.build_filesystem_component_decl_from_context, loader.ComponentLoaderDecl
    except (ImportError, AttributeError) as missing:
        said = f"A mistaken defs.yaml takes all others down: this Dagster has moved a name ({missing})."
        warnings.warn(said, stacklevel=2)
        yield
        return

    def build(context: Any) -> Any:
        try:
            return stock(context)
        except Exception as error:
            component = instead(context.path, error)
            if component is None:
                raise
            return wrapped(context=context, loc=context.component_loc, component_node_fn=lambda _: component)

    vars(loader)["build_filesystem_component_decl_from_context"] = build
    try:
        yield
    finally:
        vars(loader)["build_filesystem_component_decl_from_context"] = stock
