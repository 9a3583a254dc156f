"""A folder is written whole or not at all: killed or refused at any call to the file system, the old one can still be read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foreword.adapters import folder
from foreword.adapters.folder import FILES, Folder, local_names, read_whole, write_folder
from foreword.errors import AdapterError

ROOT = Path(__file__).resolve().parents[2]

# A writer of "new" that is stopped at its n-th call to the file system: by kill -9, or by an error of the system.
CHILD = """
import errno, os, signal, sys
from foreword.adapters.folder import FILES, write_folder
path, how, stop, mark = sys.argv[1], sys.argv[2], int(sys.argv[3]), b"new" * 1000
count, busy = 0, True
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open", "os.listdir", "os.scandir", "fcntl.flock"}

def step(event):
    global count
    if busy and event in WRITES:
        count += 1
        if count == stop:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

real_fsync = os.fsync
def fsync(handle):
    step("open")
    real_fsync(handle)

os.fsync = fsync
sys.addaudithook(lambda event, _: step(event))
try:
    write_folder(path, {name: mark for name in FILES}, overwrite=True)
finally:
    busy = False
print(count)
"""


def run_child(path: Path, how: str, stop: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHILD, str(path), how, str(stop)], cwd=ROOT, capture_output=True, text=True)


def contents(folder: Folder) -> set[bytes]:
    return {folder.read(name) for name in FILES}


def old(path: Path) -> None:
    write_folder(path, dict.fromkeys(FILES, b"old"))


def stops(tmp_path: Path) -> int:
    """How many calls a replacement makes when nothing stops it."""
    old(tmp_path / "count")
    return int(run_child(tmp_path / "count", "kill", 0).stdout)


@pytest.mark.parametrize("how", ["kill", "refuse"])
def test_stopped_at_any_call_the_old_or_the_new_folder_is_whole(how: str, tmp_path: Path) -> None:
    total = stops(tmp_path)
    assert total > 10
    seen = set()
    for stop in range(1, total + 1):
        path = tmp_path / f"{how}{stop}" / "a"
        old(path)
        done = run_child(path, how, stop)
        found = read_whole(path, contents)
        assert found in ({b"old"}, {b"new" * 1000}), stop
        assert local_names(path.parent) == ["a"]
        if how == "refuse" and done.returncode:
            assert found == {b"old"}
            assert done.stderr.splitlines()[-1] == (
                f"foreword.errors.AdapterError: adapter '{path}' could not be written (No space left on device); "
                "nothing was replaced; free some space or choose another folder."
            )
        elif how == "refuse":
            assert found == {b"new" * 1000}
        seen.add((done.returncode, *found))
        write_folder(path, dict.fromkeys(FILES, b"newest"), overwrite=True)
        assert read_whole(path, contents) == {b"newest"}
        assert [entry.name for entry in path.parent.iterdir()] == ["a"], stop
    stopped, ran = (-signal.SIGKILL, -signal.SIGKILL) if how == "kill" else (1, 0)
    assert seen == {(stopped, b"old"), (ran, b"new" * 1000)}


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_first_write_that_is_killed_leaves_nothing_to_read(stop: int, tmp_path: Path) -> None:
    assert run_child(tmp_path / "a", "kill", stop).returncode == -signal.SIGKILL
    assert local_names(tmp_path) == []
    with pytest.raises(AdapterError) as error:
        read_whole(tmp_path / "a", contents)
    assert str(error.value) == f"adapter '{tmp_path / 'a'}' does not exist; give the folder that holds its foreword.json."
    old(tmp_path / "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "a"
    old(path)
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
    )
    done = subprocess.run([sys.executable, "-c", limited + CHILD, str(path), "refuse", "0"], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"foreword.errors.AdapterError: adapter '{path}' could not be written (File too large); "
        "nothing was replaced; free some space or choose another folder."
    )
    assert read_whole(path, contents) == {b"old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


LOOP = """
import sys
from foreword.adapters.folder import FILES, write_folder
number = 0
while True:
    number += 1
    write_folder(sys.argv[1], {name: b"%d" % number * 5000 for name in FILES}, overwrite=True)
    print(number, flush=True)
"""


def test_killed_again_and_again_a_reader_always_sees_one_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    old(path)
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", LOOP, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                assert len(read_whole(path, whole)) == 1
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        assert len(read_whole(path, whole)) == 1


def whole(folder: Folder) -> set[bytes]:
    """All files' bytes; like every reader of adapters, it refuses a mixture, and is then asked again if the folder was replaced."""
    found = contents(folder)
    if len(found) != 1:
        raise AdapterError("a mixture")
    return found


def test_a_folder_that_moves_before_the_first_look_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    old(path)
    found = [tmp_path / ".a.old", path]
    monkeypatch.setattr(folder, "_standing", lambda _: found.pop(0))
    assert len(read_whole(path, whole)) == 1
