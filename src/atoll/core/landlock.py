"""Giving up rights to files, ports and processes for good, by the kernel's Landlock (Linux 5.13 and later).

No privilege is needed to give up rights, and nothing gives them back: not to this thread, nor to what it starts. What
is open already stays open. Numbers are those of linux/landlock.h; what a kernel does not know yet stays allowed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS_SINCE = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights to files there are since which version, each a bit: all that a ruleset knows it takes away."""
_TCP_SINCE, _BIND_AND_CONNECT = 4, 3
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 3


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """The version of Landlock this kernel speaks; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)))


def only_read(paths: Iterable[str]) -> bool:
    """From now on this thread may open files only to read them, and only those in `paths` and below.

    It may not execute a program, nor trace a process outside; with version 4 not use a TCP port, with version 6 not
    signal a process outside. What is not there in `paths` is passed over. Whether the kernel has taken the rights
    away: False where it has no Landlock. Raises OSError when it has, and refuses.
    """
    known = version()
    if not known:
        return False
    rules = _Ruleset(
        files=(1 << max(rights for since, rights in _RIGHTS_SINCE.items() if since <= known)) - 1,
        ports=_BIND_AND_CONNECT if known >= _TCP_SINCE else 0,
        scopes=_ABSTRACT_SOCKETS_AND_SIGNALS if known >= _SCOPES_SINCE else 0,
    )
    ruleset = _done(_libc().syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0))
    try:
        for path in paths:
            _allow_reading(ruleset, path)
        _done(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _done(_libc().syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # it is not there, or nobody's to open
        return
    try:
        rights = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE
        rule = _Beneath(rights, place)
        _done(_libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(place)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refuses to take rights away: {os.strerror(number)}")
    return result
