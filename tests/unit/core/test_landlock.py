"""Rights given up in a process of its own: what still works, and what no longer does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.core import landlock

VERSION = landlock.version()
PROGRAM = """
import json, os, signal, socket, subprocess, sys, threading
from atoll.core import landlock

inside, outside, port = sys.argv[1:4]
already = open(outside)
was = open(inside + "/a").read()
assert landlock.only_read([inside, inside + "/missing", sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64"])
tries = {
    "read inside": lambda: open(inside + "/deep/b").read(),
    "list inside": lambda: os.listdir(inside),
    "read what is open": already.read,
    "signal oneself": lambda: os.kill(os.getpid(), 0),
    "read outside": lambda: open(outside).read(),
    "list outside": lambda: os.listdir(os.path.dirname(outside)),
    "write inside": lambda: open(inside + "/a", "w"),
    "make inside": lambda: open(inside + "/new", "w"),
    "remove inside": lambda: os.unlink(inside + "/a"),
    "truncate inside": lambda: os.truncate(inside + "/a", 0),
    "execute": lambda: subprocess.run([sys.executable, "-c", ""]),
    "environment of the parent": lambda: open(f"/proc/{os.getppid()}/environ").read(),
    "connect": lambda: socket.create_connection(("127.0.0.1", int(port))),
    "signal the parent": lambda: os.kill(os.getppid(), 0),
}
found = {}

def outcomes():
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = "done"
        except PermissionError:
            found[name] = "denied"

thread = threading.Thread(target=outcomes)  # what was given up is given up for what is started, too
thread.start()
thread.join()
print(json.dumps(found))
"""
ALLOWED = ("read inside", "list inside", "read what is open", "signal oneself")
SINCE = {"truncate inside": 3, "connect": 4, "signal the parent": 6}


@pytest.mark.skipif(not VERSION, reason="this kernel has no Landlock")
def test_nothing_is_left_but_reading_what_is_named(tmp_path: Path) -> None:
    (tmp_path / "inside" / "deep").mkdir(parents=True)
    (tmp_path / "inside" / "a").write_text("a")
    (tmp_path / "inside" / "deep" / "b").write_text("b")
    (tmp_path / "outside").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = [tmp_path / "inside", tmp_path / "outside", server.getsockname()[1]]
        command = [sys.executable, "-c", PROGRAM, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found.pop(name) for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")
    for name, outcome in found.items():
        assert outcome == "denied" or SINCE.get(name, 1) > VERSION, name
    assert (tmp_path / "inside" / "a").read_text() == "a" or VERSION < 3


@pytest.mark.skipif(VERSION > 0, reason="this kernel has Landlock")
def test_without_landlock_nothing_is_given_up(tmp_path: Path) -> None:
    assert not landlock.only_read([])
    (tmp_path / "a").write_text("a")
