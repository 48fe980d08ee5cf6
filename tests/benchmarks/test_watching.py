"""What a command takes, told from outside."""

import pathlib
import sys
import time

from benchmarks.support.watching import watch


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_and_those_that_it_starts():
    child = "import time; held = bytearray(90_000_000); time.sleep(1)"
    code = f"import subprocess, sys; print('said'); subprocess.run([sys.executable, '-c', {child!r}]); sys.exit(3)"
    watched = watch(python(code))
    assert (watched.status, watched.tail) == (3, "said\n")
    assert watched.child_mb > 90 > watched.root_mb
    assert watched.peak_mb > 90
    assert watched.seconds > 1


def test_work_of_processes_that_were_waited_for():
    work = "import time; until = time.process_time() + 0.6\nwhile time.process_time() < until: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    assert watch(python(code)).cpu_seconds >= 0.6


def test_a_kill_reaches_every_process(tmp_path):
    """Also one whose parent has gone, and that is in a session of its own, as the daemons of engines are."""
    place = tmp_path / "pid"
    daemon = f"import os, pathlib, time; pathlib.Path({str(place)!r}).write_text(str(os.getpid())); time.sleep(60)"
    starter = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {daemon!r}], start_new_session=True); "
        "time.sleep(1)"
    )
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {starter!r}]); time.sleep(60)"
    begun = time.monotonic()
    watched = watch(python(code), kill_when=lambda: place.exists() and time.monotonic() > begun + 2)
    assert watched.status == -9
    until = time.monotonic() + 20  # the kernel ends a process that was killed when it comes to it
    while is_running(place.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(place.read_text())


def is_running(pid: str) -> bool:
    """False also for one that has ended, and that nobody has waited for."""
    try:
        return pathlib.Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_variables_beside_those_of_this_process(monkeypatch):
    monkeypatch.setenv("MINE", "a")
    watched = watch(python("import os; print(os.environ['MINE'], os.environ['THEIRS'])"), {"THEIRS": "b"})
    assert watched.tail == "a b\n"
