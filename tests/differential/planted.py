"""A difference on purpose, for `test_differential_told.py`, which runs this in a process of its own.

python -m pytest tests/differential/planted.py
"""

import os
import time

from hypothesis import HealthCheck, Phase, settings

from differential.machine import FaultPathMachine
from differential.program import run_programs
from differential.wrong import copy_of_the_model, takes_the_newest_page


class WrongMachine(FaultPathMachine):
    subject = copy_of_the_model("twin_that_evicts_wrongly")

    def finish(self) -> None:
        super().finish()
        if self.is_quiet:
            time.sleep(0.2)  # so that making it shorter would take minutes


takes_the_newest_page(WrongMachine.subject)


def test_of_a_model_that_is_wrong() -> None:
    how = settings(
        derandomize=True,
        database=None,
        deadline=None,
        stateful_step_count=50,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    run_programs(WrongMachine, how, float(os.environ["SHORTENING_SECONDS"]))
