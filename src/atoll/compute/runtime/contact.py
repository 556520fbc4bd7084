"""The machine's contact with the centre, on disk: written by the agent, watched by every shim that must heed it.

The file outlives the agent, so one that starts again inside a partition goes on counting where the last one stopped.
Its modification time is the contact, on the lease clock and not as a date: a stamp is never half written and needs no
free block, so that a full disk does not look like a lost centre. What it says is in `shim.Contact`, which reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from atoll.compute.runtime.shim import Contact, boot_id, is_free, lease_clock_s
from atoll.core.files import replace_file


def contact_path(home: Path) -> Path:
    """The contact file of the agent home `home`."""
    return home / "contact.json"


class ContactFile:
    """Keeps `home`'s contact file. `centre_lock` is the lock of the centre's process where it runs on this machine.

    The lock may only be named when no other process can be this centre, now or later: it is proof of absence.
    """

    def __init__(self, home: Path, centre_lock: str = "") -> None:
        self._path, self._centre_lock = contact_path(home), centre_lock
        before_s = Contact(str(self._path)).at_s
        self._at_s = before_s if before_s <= self.now_s() else float("-inf")  # it was on another clock
        self._written: dict[str, object] = {}

    def now_s(self) -> float:
        """The lease clock."""
        return lease_clock_s(bool(self._centre_lock))

    @property
    def is_own(self) -> bool:
        """Whether this very agent has had contact."""
        return bool(self._written)

    def silent_s(self) -> float:
        """Seconds since the last contact, whichever agent of this home had it; infinite when there was none."""
        if self._centre_lock and is_free(self._centre_lock):
            self._at_s = self.now_s()
        return self.now_s() - self._at_s

    def renew(self, at_s: float, lease_ttl_s: float) -> None:
        """The centre has taken a request sent at `at_s`, and gives leases of `lease_ttl_s`.

        Raises OSError or ResourceExhausted when that cannot be written: tasks then stop as without contact.
        """
        self._at_s = max(self._at_s, at_s)
        said = {"boot_id": boot_id(), "lease_ttl_s": lease_ttl_s, "centre_lock": self._centre_lock}
        if said == self._written and self._path.exists():
            os.utime(self._path, ns=self._stamp)
            return
        with replace_file(self._path, durable=False, mode=0o600) as file:
            file.write(orjson.dumps(said))
            file.flush()
            os.utime(file.fileno(), ns=self._stamp)
        self._written = dict(said)

    @property
    def _stamp(self) -> tuple[int, int]:
        return (int(self._at_s * 1e9),) * 2
