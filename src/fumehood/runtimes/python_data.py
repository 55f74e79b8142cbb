"""Python with the packages that data work takes for granted: numpy, pandas, matplotlib, scipy and others."""

from __future__ import annotations

import os

from ..sandbox.spec import Mount
from .python import SETTLED, STANDARD, Python
from .runtime import Warmth

# matplotlib asks fontconfig for the system's fonts, which complains on the program's standard error where it has no settings.
_FONTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fonts.conf")

_ENVIRONMENT = {
    # There is no screen to draw on.
    "MPLBACKEND": "Agg",
    # Its other threads would start with the import, and no fork takes threads along. Who wants them sets this.
    "OPENBLAS_NUM_THREADS": "1",
}

# Those that most programs import; every further one makes every fork dearer.
_PRELOAD = ("numpy", "pandas", "matplotlib", "matplotlib.pyplot")
_SETTLED = (
    "OPENBLAS",
    "GOTO",
    "OMP_",
    "KMP_",
    "MKL_",
    "BLIS",
    "NUMEXPR",
    "NPY_",
    "NUMPY",
    "PANDAS",
    "MPL",
    "XDG_",
    "SCIPY",
)
_SAMPLE = """import io, numpy as np, pandas as pd
a = np.linspace(0.0, 1.0, 12).reshape(3, 4)
(a @ a.T).sum(), np.linalg.inv(np.eye(3)), np.random.default_rng(0).normal(size=3), str(a)
d = pd.DataFrame({'a': ['x', 'y', 'x'], 'b': [1.0, 2.0, 3.0]})
print(1, 1.5, 'a', [1], {'a': (1, None)}, np.arange(10).sum(), d.groupby('a').b.sum().to_string(), file=io.StringIO())
str(d), str(d.groupby('a').b.mean()), d.describe(), d.sort_values('b'), d.merge(d, on='a')
print(end='', flush=True)
"""

RUNTIME = Python(
    "python-data",
    (Mount(host=_FONTS, inside="/etc/fonts/fonts.conf"),),
    _ENVIRONMENT,
    Warmth(preload=(*STANDARD, *_PRELOAD), sample=_SAMPLE, settled=(*SETTLED, *_SETTLED)),
    session_preload=(
        "IPython",
        "IPython.core.interactiveshell",
        "IPython.core.async_helpers",
        "matplotlib_inline.backend_inline",
    ),
)
