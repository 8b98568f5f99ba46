"""XLA's flags for physics, set by importing this before JAX; what the user sets wins.

XLA's newer emitters of fused kernels take longer to compile physics, and what they make is slower.
Not for other programs: on the sinusoid they pay.
"""

import os

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false"
)
