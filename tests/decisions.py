"""What is decided of problems, forgotten: for tests that change how work is cut, before and after."""

from __future__ import annotations

import functools
import sys

from convjit.functional import kept
from convjit.functional.looking_up import LookedUp


def forget() -> None:
    """Clear the tables of all decisions, and workspaces that calls left; what is compiled stays."""
    for name, module in list(sys.modules.items()):
        if name.startswith("convjit."):
            for each in vars(module).values():
                each = each.kept if isinstance(each, LookedUp) else each
                if isinstance(each, functools._lru_cache_wrapper) and each.cache_parameters()["maxsize"] is not None:
                    each.cache_clear()
    kept._kept.clear()
