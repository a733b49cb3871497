"""Settings shared by the Python tests."""

import os

from hypothesis import HealthCheck, settings

# Chosen by name alone: hypothesis has a profile of its own for `CI=true`, which would otherwise apply.
# No deadline: these examples do real input and output.
settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True, print_blob=True)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=5000,
    stateful_step_count=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("SPECMM_HYPOTHESIS", "dev"))
