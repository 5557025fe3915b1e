"""Whose hooks an object has: a face's own, past which native code may go, or somebody else's."""

from __future__ import annotations


def is_own(owner: object, hook: str, face: str) -> bool:
    """Whether a hook is the face's, rather than a subclass's or put on the object.

    Args:
        owner: The object.
        hook: Name of the method.
        face: The face's package.
    """
    found = getattr(owner, hook)
    home = str(getattr(found, "__module__", ""))
    # What wraps a function takes on its module.
    return hook not in vars(owner) and not hasattr(found, "__wrapped__") and home.startswith(face)
