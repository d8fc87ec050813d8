"""Speed and memory of functx beside torch.func; run with ``python -m benchmarks [NAME ...]``."""

import os

# The profiler's library logs each start and stop into the middle of the tables otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
