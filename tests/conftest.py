from __future__ import annotations

import os

# Small tensors gain nothing from threads, and tests may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
