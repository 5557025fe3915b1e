"""Drop-in faces of other CAM libraries: the same imports, calls and maps, made by camfuse.

Import a face by its place, ``from camfuse.compat.pytorch_grad_cam import GradCAM``; or
:func:`install` it under the name of its library, for programs that are not to be changed;
or run such a program as it is: ``python -m camfuse.compat run program.py``.
"""

from camfuse.compat.installation import install, uninstall

__all__ = ["install", "uninstall"]
