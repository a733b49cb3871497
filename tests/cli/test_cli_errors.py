"""What the `specmm` command says when it cannot go on, and that it ends in order."""

import os
import signal
import subprocess
import sys
import time

import pytest

from specmm import cli

SIZE = 8 << 20


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["faults", "/no/such/file"], "/no/such/file"),
        (["faults", "/"], "'/'"),
        (["faults", "EMPTY"], "EMPTY"),
        (["faults", "/dev/null"], "/dev/null"),
        (["faults", "FILE", "--writer-rate", "often"], "often"),
        (["faults", "FILE", "--writer-rate", "-1"], "-1"),
        (["faults", "FILE", "--threads", "0"], "'0'"),
        (["faults", "FILE", "--threads", "many"], "many"),
        (["faults", "FILE", "--locking", "vma"], "'vma'"),
        (["faults", "FILE", "--workload", "nothing"], "'nothing'"),
        (["faults", "FILE", "--seconds", "nan"], "nan"),
        (["faults", "FILE", "--seconds", "-2"], "-2"),
        (["faults", "FILE", "--length", "0"], "'0'"),
        (["faults", "FILE", "--length", "big"], "big"),
        (["faults", "FILE", "--capacity", "64KiB"], "65536"),
        (["faults", "FILE", "--plot", "/no/such/folder/x.png"], "/no/such/folder"),
        (["faults", "FILE", "--plot", "x.txt"], "x.txt"),
        (["read", "/no/such/file"], "/no/such/file"),
        (["read", "/"], "'/'"),
        (["read", "EMPTY"], "EMPTY"),
        (["read", "/dev/null"], "/dev/null"),
        (["read", "FILE", "--reads", "backwards"], "backwards"),
        (["read", "FILE", "--count", "0"], "'0'"),
        (["read", "FILE", "--size", "0"], "'0'"),
        (["read", "FILE", "--size", "9MiB"], "9437184"),
        (["read", "FILE", "--capacity", "4095"], "4095"),
        (["read", "FILE", "--batch", "65", "--count", "64"], "65"),
        (["read", "FILE", "--seconds", "0"], "'0'"),
        (["stat", "/no/such/file"], "/no/such/file"),
        (["stat", "/"], "'/'"),
        (["stat", "EMPTY"], "EMPTY"),
        (["stat", "FILE", "--reads", "backwards"], "backwards"),
        (["stat", "FILE", "--reads", "random", "--capacity", "100"], "100"),
        (["stat", "FILE", "--count", "-1"], "'-1'"),
        (["check", "--seconds", "0"], "'0'"),
        (["check", "--seed", "x"], "'x'"),
        (["nothing"], "nothing"),
        ([], "COMMAND"),
    ],
)
def test_bad_input_is_one_line_that_names_it(arguments, named, user_file, tmp_path, capsys):
    (tmp_path / "EMPTY").touch()
    places = {"FILE": str(user_file), "EMPTY": str(tmp_path / "EMPTY")}
    try:
        code = cli.main([places.get(each, each) for each in arguments])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert named in err


def test_a_file_that_shrinks_ends_the_run_with_an_error(tmp_path):
    path = tmp_path / "shrinks"
    path.write_bytes(os.urandom(SIZE))
    with subprocess.Popen(
        [sys.executable, "-m", "specmm", "faults", str(path), "--seconds", "20"],
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        time.sleep(2)
        os.truncate(path, 4096)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1, err
    assert "4096 bytes" in err
    assert "Traceback" not in err


def test_ctrl_c_ends_it_at_once(user_file):
    with subprocess.Popen(
        [sys.executable, "-m", "specmm", "faults", str(user_file), "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        time.sleep(2)
        sent = time.monotonic()
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert run.returncode == 130
    assert out == ""
    assert "Traceback" not in err


def test_termination_leaves_no_temporary_file(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "specmm", "faults", "--seconds", "60"],
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as run:
        deadline = time.monotonic() + 30
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        run.terminate()
        run.communicate(timeout=30)
    assert run.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_traceback(user_file):
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(
        [sys.executable, "-m", "specmm", "faults", str(user_file), "--seconds", "0.1"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        os.close(write)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in err
    assert "Exception" not in err
