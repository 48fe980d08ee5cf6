"""What Beam looks up hundreds of times for each small pipeline, looked up once: a third of a tiny run's time.

Signatures of functions, and the flags of each kind of options. Both follow from what is given and from nothing else.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import weakref
from typing import Any


@functools.cache
def remember() -> None:
    """From now on, in this process."""
    from apache_beam.options import pipeline_options
    from apache_beam.typehints import decorators

    _signatures(decorators)
    _options(pipeline_options.PipelineOptions)


def _signatures(decorators: Any) -> None:
    look_up = decorators.get_signature
    known: dict[bool, Any] = {is_method: weakref.WeakKeyDictionary() for is_method in (False, True)}

    def get_signature(function: Any) -> inspect.Signature:
        is_method = inspect.ismethod(function)  # whose signature lacks `self`, whatever it is bound to
        key = function.__func__ if is_method else function
        if not inspect.isfunction(key):
            return look_up(function)
        if key not in known[is_method]:
            known[is_method][key] = look_up(function)
        return known[is_method][key]

    for module in [module for name, module in sys.modules.items() if name.startswith("apache_beam")]:
        if getattr(module, "get_signature", None) is look_up:
            module.get_signature = get_signature


def _options(options: Any) -> None:
    parse = options.__init__
    known: dict[tuple, Any] = {}

    def init(self, flags: Any = None, **others: Any) -> None:
        key = (type(self), tuple(flags)) if isinstance(flags, list | tuple) and not others else None
        if key not in known:
            parse(self, flags, **others)
            if key:
                known[key] = copy.deepcopy(self._visible_options)
        else:
            self._flags, self._visible_options = flags, copy.deepcopy(known[key])
            self._all_options = dict(vars(self._visible_options))

    options.__init__ = init
