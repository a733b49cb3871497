"""The `specmm` command as a process: Ctrl-C at any moment, closed streams, encodings that lack letters."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

PIPED = 128 + signal.SIGPIPE

# Every subcommand, and what the parser answers by itself.
SUBCOMMANDS = {
    "faults": ["faults", "FILE", "--seconds", "0.02", "--threads", "1", "--writer-rate", "0"],
    "read": ["read", "FILE", "--count", "64", "--seconds", "0.02", "--reads", "random"],
    "stat": ["stat", "FILE", "--reads", "random", "--count", "10"],
    "json": ["stat", "FILE", "--json"],
    "check": ["check", "--seconds", "0.05", "--seed", "1"],
    "help": ["--help"],
    "help of one": ["faults", "--help"],
    "version": ["--version"],
    "mistake": ["stat"],
}

PARSED = ("help", "help of one", "version")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # Letters that ASCII has not, and a byte that is no letter in UTF-8.
    path = tmp_path_factory.mktemp("user") / os.fsdecode("dätä".encode() + b"\xff.bin")
    path.write_bytes(bytes(1 << 20))
    return str(path)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The command as pip installs it."""
    path = tmp_path_factory.mktemp("bin") / "specmm"
    path.write_text("import sys\nfrom specmm.cli.process import run\nsys.exit(run())\n")
    return path


def command(name, data):
    return ["-m", "specmm", *(data if each == "FILE" else each for each in SUBCOMMANDS[name])]


def finished(arguments, **options):
    options.setdefault("stdout", subprocess.PIPE)
    done = subprocess.run(
        [sys.executable, *arguments], stderr=subprocess.PIPE, timeout=120, check=False, **options
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert b"Exception" not in done.stderr, done.stderr.decode()
    return done


def without_buffer(unbuffered):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return environment | {"PYTHONUNBUFFERED": "1"} if unbuffered else environment


def variants(name, *variants):
    """One subcommand sees them all, each of the others another one each time."""
    return variants if name == "stat" else [random.choice(variants)]


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_reader_that_has_gone(data, name):
    # The parser itself does not look whether anybody listens.
    expected = {2} if name == "mistake" else {PIPED, 0} if name in PARSED else {PIPED}
    for unbuffered in variants(name, False, True):
        read, write = os.pipe()
        os.close(read)
        done = finished(command(name, data), stdout=write, env=without_buffer(unbuffered))
        os.close(write)
        assert done.returncode in expected, done


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_streams_that_are_closed_or_full(data, name):
    code = 2 if name == "mistake" else 0
    for stream, how in variants(name, (1, "full"), (2, "full"), (1, "closed"), (2, "closed")):
        change = f"os.dup2(os.open('/dev/full', 1), {stream})" if how == "full" else f"os.close({stream})"
        program = f"import os, sys; {change}; os.execv(sys.executable, [sys.executable] + sys.argv[1:])"
        done = finished(["-c", program, *command(name, data)], env=without_buffer(unbuffered=False))
        expected = 1 if stream == 1 and (how == "closed" or code == 0) else code
        assert done.returncode == expected, done
        assert (b"stdout is closed" in done.stderr) == ((stream, how) == (1, "closed"))


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_letters_that_the_encoding_has_not(data, name):
    for environment in variants(
        name,
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-8:strict"},
    ):
        done = finished(command(name, data), env={**os.environ, **environment})
        assert done.returncode == (2 if name == "mistake" else 0), done.stderr


@pytest.mark.parametrize("name", ["faults", "read", "stat", "check", "help"])
def test_ctrl_c_at_any_moment(data, script, name):
    """However the command was started, from its first step on; before that Python itself is interrupted."""
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    codes, early = [], 0
    for number in range(6):
        started = command(name, data)
        if number % 2:
            started[:2] = [str(script)]
        # As the last of several options counts, this one takes long enough.
        started += ["--seconds", "5"] if name not in ("stat", "help") else []
        with subprocess.Popen(
            [sys.executable, *started], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            time.sleep(draw.random() * 0.5)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
        codes.append(child.returncode)
        if "Traceback" in said:
            # It came before the first line of ours that does something.
            ours = re.findall(r'File "[^"]*/specmm/([^"]*)"', said)
            assert set(ours) <= {"__init__.py", "_early.py"}, f"seed {seed}: {said}"
            assert "_early" in said or not ours, f"seed {seed}: {said}"
            early += 1
        else:
            assert child.returncode in (130, -signal.SIGINT, 0), f"seed {seed}: {child.returncode}, {said}"
            assert said.count("\n") <= 1, f"seed {seed}: {said}"
    assert name in ("stat", "help") or set(codes) & {130, -signal.SIGINT}, codes
    assert early <= 3, f"seed {seed}: {early} of 6 were early"


def test_an_interrupt_that_is_to_be_ignored_stays_so(data):
    program = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable] + sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *command("faults", data), "--seconds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0, out


@pytest.mark.parametrize("started", [["-c", "PROGRAM"], ["other.py"], ["-m", "other"]])
def test_a_program_that_imports_the_package_keeps_its_handler(tmp_path, started):
    program = "import signal, specmm; print(signal.getsignal(2) is signal.default_int_handler)"
    (tmp_path / "other.py").write_text(program)
    arguments = [program if each == "PROGRAM" else each for each in started]
    done = finished(arguments, cwd=tmp_path)
    assert done.stdout == b"True\n"
