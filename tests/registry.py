"""The registry's methods by what they ask of a model."""

from __future__ import annotations

from camfuse.methods import METHODS
from camfuse.methods.base import PassMethod, RuleMethod

PER_LAYER = [name for name, method in METHODS.items() if not method.whole]
WHOLE = [name for name, method in METHODS.items() if method.whole]
OWN_PASSES = [
    name for name in PER_LAYER if isinstance(METHODS[name], PassMethod) and not METHODS[name].only
]
# For every layer, from the one pass that all of them share.
ONE_PASS = [
    name for name in PER_LAYER if not (isinstance(METHODS[name], PassMethod) or METHODS[name].only)
]
# Those that differentiate once and read no values on the host.
PLAIN = [name for name in ONE_PASS if not METHODS[name].second_order]
RULES = {
    name: method.rule
    for name, method in METHODS.items()
    if isinstance(method, RuleMethod) and method.target is None
}
