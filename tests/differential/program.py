"""A program of a differential machine: its steps as they are taken, told when one fails, and made shorter.

`initialize` and `rule` are hypothesis's own, but note each call in the machine's program. So a difference is
written out, as lines that repeat it, when it is met: a run that is ended while it looks for something
shorter has told everything by then. That search has an end, which hypothesis's own shrinking has not.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import Phase, settings, stateful

Step = tuple[str, dict[str, Any]]


def on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Where differences are told. Under pytest conftest.py puts a way around the capture here.
say: Callable[[str], None] = on_stderr


@dataclass
class Program:
    """The steps of one machine, in order, each with its arguments."""

    machine: type[ProgramMachine]
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        """Python to be run in tests/."""
        name = self.machine.__name__
        lines = [f"from {self.machine.__module__} import {name}", f"state = {name}()"]
        for step, arguments in self.steps:
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            lines.append(f"state.{step}({given})")
        return "\n".join([*lines, "state.teardown()"])

    def tell(self, error: BaseException, how: str) -> None:
        say(f"\n{self.machine.__name__} {how}.\n{type(error).__name__}: {error}\nTo repeat it:\n\n{self}\n")

    def run(self) -> Exception | None:
        """What goes wrong in it, on a fresh machine."""
        state = self.machine()
        state.is_quiet = True
        try:
            try:
                for step, arguments in self.steps:
                    getattr(state, step)(**arguments)
            finally:
                state.teardown()
        except Exception as error:
            return error
        return None


class Shortening:
    """The search for fewer steps that fail with the same kind of error, for so many seconds."""

    def __init__(self, program: Program, seconds: float) -> None:
        self.program = program
        self.error = program.run()
        self.end = time.monotonic() + seconds

    def tell(self) -> None:
        if self.error is None:
            say("It did not fail when it was repeated: something is left to chance.")
            return
        before = 0
        while before != len(str(self.program)) and time.monotonic() < self.end:
            before = len(str(self.program))
            first, *rest = self.program.steps
            self.leave_out(rest, lambda fewer, first=first: [first, *fewer])
            for at in range(len(self.program.steps)):
                self.leave_out_in_step(at)
        self.program.tell(self.error, f"fails in {len(self.program.steps)} steps as well")

    def leave_out_in_step(self, at: int) -> None:
        """What a step is given in lists."""
        steps = self.program.steps
        name, arguments = steps[at]
        for key, value in arguments.items():
            if isinstance(value, list):
                self.leave_out(
                    value,
                    lambda fewer, key=key: [
                        *steps[:at],
                        (name, self.program.steps[at][1] | {key: fewer}),
                        *steps[at + 1 :],
                    ],
                )

    def leave_out(self, items: list[Any], steps_with: Callable[[list[Any]], list[Step]]) -> None:
        """Every part that is not needed, halves first, single items last."""
        part = len(items)
        while part:
            start = 0
            while start < len(items):
                fewer = items[:start] + items[start + part :]
                if self.still_fails(steps_with(fewer)):
                    items = fewer
                else:
                    start += part
            part //= 2

    def still_fails(self, steps: list[Step]) -> bool:
        if time.monotonic() > self.end:
            return False
        candidate = Program(self.program.machine, steps)
        error = candidate.run()
        if type(error) is not type(self.error):
            return False
        self.program, self.error = candidate, error
        return True


class ProgramMachine(stateful.RuleBasedStateMachine):
    """A state machine that notes its program."""

    is_quiet = False  # whether failures are told
    run_failed: ClassVar[list[Program] | None] = None  # in the run that is going on, if there is one

    def __init__(self) -> None:
        super().__init__()
        self.program = Program(type(self))
        self.depth = 0

    def failed(self, error: Exception) -> None:
        """Told once: hypothesis repeats what failed."""
        if not (self.is_quiet or self.run_failed):
            self.program.tell(error, f"fails after {len(self.program.steps)} steps")
        if self.run_failed is not None:
            self.run_failed.append(self.program)

    def finish(self) -> None:
        """The end of a program, whether it failed or not."""

    def teardown(self) -> None:
        try:
            self.finish()
        except Exception as error:
            self.failed(error)
            raise


def run_programs(machine: type[ProgramMachine], how: settings, seconds: float) -> None:
    """hypothesis's `run_state_machine_as_test`, but what fails is made shorter here, for so many seconds."""
    machine.run_failed = failed = []
    phases = [phase for phase in how.phases if phase not in (Phase.shrink, Phase.explain)]
    try:
        stateful.run_state_machine_as_test(machine, settings=settings(how, phases=phases))
    except Exception:
        if failed:
            Shortening(failed[0], seconds).tell()
        raise
    finally:
        machine.run_failed = None


def noted(function: Callable[..., None]) -> Callable[..., None]:
    """The step itself; those that it calls are part of it."""
    parameters = inspect.signature(function)

    @functools.wraps(function)
    def step(self: ProgramMachine, *given: Any, **named: Any) -> None:
        if self.depth == 0:
            arguments = dict(parameters.bind(self, *given, **named).arguments)
            del arguments["self"]
            self.program.steps.append((function.__name__, arguments))
        self.depth += 1
        try:
            function(self, *given, **named)
        except Exception as error:
            self.failed(error)
            raise
        finally:
            self.depth -= 1

    return step


def rule(**drawn: Any) -> Callable[[Callable[..., None]], Any]:
    """hypothesis's `rule`, noted."""
    return lambda function: stateful.rule(**drawn)(noted(function))


def initialize(**drawn: Any) -> Callable[[Callable[..., None]], Any]:
    """hypothesis's `initialize`, noted."""
    return lambda function: stateful.initialize(**drawn)(noted(function))
