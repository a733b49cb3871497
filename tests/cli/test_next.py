"""How each command ends: with what to run next, which is a command that works."""

import json
import os
import pathlib
import shlex

import pytest

import specmm
from programs import command
from specmm import cli

# Another folder must not keep a child from finding the package.
HERE = str(pathlib.Path(specmm.__file__).resolve().parents[1])

RUNS = {
    "read": [["FILE", "--reads", "random", "--count", "64", "--seconds", "0.02"]],
    "stat": [["FILE"], ["FILE", "--reads", "random", "--count", "9"], ["FILE", "--reads", "sequential"]],
    "faults": [
        ["--length", "1MiB", "--seconds", "0.02"],
        ["FILE", "--seconds", "0.02", "--writer-rate", "max"],
    ],
    "check": [["--seconds", "0.05"]],
}


def subcommands():
    [choices] = [action.choices for action in cli._parser()._actions if action.dest == "command"]
    return list(choices)


def test_every_command_is_here():
    assert sorted(subcommands()) == sorted(RUNS)


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, each) for name, runs in RUNS.items() for each in runs]
)
@pytest.mark.parametrize("file", ["data.bin", "-a 'file'"])
def test_it_ends_with_commands_that_work(tmp_path, name, arguments, file):
    (tmp_path / file).write_bytes(os.urandom(1 << 20))
    given = [f"./{file}" if each == "FILE" else each for each in arguments]
    run = command(name, *given, cwd=tmp_path, env={"PYTHONPATH": HERE})
    assert run.returncode == 0, run.stderr
    head, *steps = run.stdout.rstrip().split("\n\n")[-1].splitlines()
    assert head == "Next:"
    assert steps
    for step in steps:
        line, _, gives = step.strip().rpartition("  ")
        assert gives
        words = shlex.split(line)
        assert words[0] == "specmm"
        # The parser ends the test with SystemExit if it does not take them.
        options = cli._parser().parse_args(words[1:])
        assert options.command in subcommands()
        if getattr(options, "file", None) is not None:
            assert (tmp_path / options.file).is_file()
        assert words[1:] != [name, *given], "what has just been run"


def test_json_is_nothing_else(tmp_path):
    (tmp_path / "data.bin").write_bytes(os.urandom(1 << 20))
    for name, [arguments, *_] in RUNS.items():
        run = command(name, *[str(tmp_path / "data.bin") if a == "FILE" else a for a in arguments], "--json")
        assert isinstance(json.loads(run.stdout), dict), name


def test_a_difference_ends_with_how_to_repeat_it(capsys, monkeypatch):
    monkeypatch.setattr("specmm.cli.check_program.model.Mm.load", lambda *_: b"something else")
    assert cli.main(["check", "--seconds", "20", "--seed", "1"]) == 1
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    options = cli._parser().parse_args(shlex.split(last.rpartition("  ")[0])[1:])
    assert cli.main(["check", "--seconds", "20", "--seed", str(options.seed)]) == 1
