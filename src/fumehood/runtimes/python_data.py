"""Python with the packages that data work takes for granted: numpy, pandas, matplotlib, scipy and others."""

from __future__ import annotations

import os

from ..sandbox.spec import Mount
from .python import Python

# matplotlib asks fontconfig for the system's fonts, which complains on the program's standard error where it has no settings.
_FONTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fonts.conf")

RUNTIME = Python(
    "python-data",
    (Mount(host=_FONTS, inside="/etc/fonts/fonts.conf"),),
    # There is no screen to draw on.
    {"MPLBACKEND": "Agg"},
)
