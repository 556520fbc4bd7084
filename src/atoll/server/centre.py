"""Everything the server role holds, put together and taken apart in one place."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable

from atoll.compute.accountant import Accountant
from atoll.compute.controllers import NodeController, TaskController, WorkloadController
from atoll.core.blobs import BlobStore
from atoll.core.clock import SystemClock
from atoll.core.collect import Collector
from atoll.core.database import Database
from atoll.core.errors import AtollError, Fenced
from atoll.core.feed import Feed
from atoll.core.files import write_bytes
from atoll.core.leases import Lease, Leases
from atoll.core.reconcile import Controller, Loop, LoopRunner
from atoll.core.resources import DEFAULT_PROJECT, SYSTEM_PROJECT
from atoll.core.sealed import SealedBlobs
from atoll.core.settings import Settings
from atoll.core.store import Create, Store
from atoll.data.controllers import DatasetController, DatasetVersionController
from atoll.data.curation import CurationRunController
from atoll.data.erasure import ErasureController
from atoll.data.files import FileController, UploadController
from atoll.data.imports import DatasetImportController
from atoll.data.labelling.controllers import LabelRunController, LabelTaskController
from atoll.data.labelling.erasing import LabelRecords
from atoll.data.labelling.store import forget_tasks
from atoll.data.quality import QualityModelController
from atoll.data.records import Events, Records
from atoll.data.resealing import DataKeyController
from atoll.data.synthesis import SynthesisRunController
from atoll.governance.controllers import BudgetController
from atoll.governance.keyring import KeyRing
from atoll.governance.keys import hash_of, new_key
from atoll.governance.ledger import Ledger
from atoll.governance.meters import Meters
from atoll.governance.resources import API_KEY, PROJECT
from atoll.governance.secrets import Secrets, load_keys
from atoll.governance.statements import Statements
from atoll.governance.uploads import Uploads
from atoll.governance.vouchers import Payments
from atoll.models import library
from atoll.models.controllers import ModelController, ModelVersionController
from atoll.server import kinds
from atoll.server.openai.erasing import ConversationRecords, ItemRecords, ResponseRecords
from atoll.server.openai.history import forget_projects, forget_responses
from atoll.server.processes import system_key
from atoll.server.snapshot import Snapshots
from atoll.server.sweep import sweep
from atoll.serving.batches import BatchController
from atoll.serving.controllers import DeploymentController, ReplicaController
from atoll.serving.demand import Demand
from atoll.serving.providers import ProviderController, RouteController
from atoll.training.controllers import EvaluationController, PipelineController, TrainingRunController

log = logging.getLogger(__name__)

LEADER_LEASE = "controllers"
LEADER_TTL_S = 10.0
SWEEP_S = 600.0

assert kinds.DOMAINS


class Centre:
    """The server's parts over one home: store, feed, ledger, blobs, keys and the controllers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.started_at = self.clock.monotonic()
        self.database = Database(settings.database_url)
        self.database.migrate()
        self.store = Store(self.database, self.clock)
        self.feed = Feed(self.store)
        self.leases = Leases(self.database, self.clock)
        self.blobs = BlobStore(settings.blobs_url)
        self.ledger = Ledger(self.database, self.clock)
        self.meters = Meters(self.database, self.clock)
        self.payments = Payments(self.database, self.clock)
        self.statements = Statements(self.database, self.ledger, self.payments, self.meters)
        self.secrets = Secrets(load_keys(settings.home / "run" / "secrets.key", settings.secrets_key))
        self.keyring = KeyRing(self.store, self.feed, system_key(settings))
        self.demand = Demand(self.database)
        self.snapshots = Snapshots(self.store, settings, self.demand, self.secret_of)
        self._leadership = _Leadership(self, f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}")
        first_start(self.store, settings)

    def start(self) -> None:
        """Begin to watch and to reconcile."""
        self.feed.start()
        self._leadership.start()

    def stop(self) -> None:
        """Finish what is under way and let go of everything."""
        self._leadership.stop()
        self.feed.stop()
        self.database.close()

    def controllers(self) -> list[Controller]:
        """One of each; they remember nothing."""
        made = controllers(self.leases, self.blobs, self.settings.lease_ttl_s, self.demand, self.secret_of)
        return [
            *made,
            BatchController(self.blobs, self.secrets, self.settings.door_url),
            CurationRunController(self.secrets, self.settings.door_url, library.resolve),
            SynthesisRunController(self.secrets, self.settings.door_url),
            ErasureController(self.blobs, self._records(), self.database.scrub),
            DataKeyController(self.blobs, self.secrets),
            LabelTaskController(self.database),
            LabelRunController(self.secrets, self.settings.door_url),
            BudgetController(self.ledger),
            Accountant(self.ledger, self.meters),
        ]

    def _records(self) -> list[Records]:
        """Everything in tables that may hold a person's texts."""
        return [
            LabelRecords(self.store, self.database, self.clock),
            ItemRecords(self.database),
            ConversationRecords(self.database),
            ResponseRecords(self.database),
            Events(self.database),
        ]

    def secret_of(self, project: str, reference: str) -> str:
        """The value NAME/VALUE among the secrets of `project`."""
        return self.secrets.value(self.store.everything(), project, reference)

    def sealed_blobs(self, project: str) -> SealedBlobs:
        """Where the uploads of `project` are stored, sealed with its key."""
        return SealedBlobs(self.blobs, self.secrets.data_keys(self.store.everything(), project))

    def uploads(self, project: str) -> Uploads:
        """The uploads of `project`, those stored before they were sealed among them, to be read."""
        return Uploads(self.blobs, self.secrets.data_keys(self.store.everything(), project))


def controllers(
    leases: Leases, blobs: BlobStore, lease_ttl_s: float, demand: Demand, secret_of: Callable[[str, str], str]
) -> list[Controller]:
    """All controllers of the product."""
    return [
        NodeController(leases, lease_ttl_s),
        TaskController(),
        WorkloadController(),
        FileController(),
        UploadController(),
        DatasetImportController(blobs),
        QualityModelController(),
        DatasetVersionController(blobs),
        DatasetController(),
        ModelVersionController(),
        ModelController(),
        TrainingRunController(),
        EvaluationController(),
        PipelineController(),
        DeploymentController(demand),
        ReplicaController(),
        ProviderController(secret_of),
        RouteController(),
        Collector(),
    ]


def first_start(store: Store, settings: Settings) -> None:
    """On an empty store: the default project and an administrator's key in the credentials file."""
    scope = store.everything("first-start")
    if scope.find("Project", DEFAULT_PROJECT, SYSTEM_PROJECT) is not None:
        return
    key = new_key()
    project = Create(
        "Project", SYSTEM_PROJECT, DEFAULT_PROJECT, PROJECT.parse_spec({"display_name": "Default"}), {"phase": "ready"}
    )
    spec = API_KEY.parse_spec({"description": "made at the first start", "role": "admin", "sha256": hash_of(key)})
    admin = Create("ApiKey", DEFAULT_PROJECT, "admin", spec, {"phase": "ready"})
    _write_credentials(settings, key)
    scope.write([project, admin])


def _write_credentials(settings: Settings, key: str) -> None:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host  # noqa: S104 - compared, not bound
    text = f'[default]\naddress = "http://{host}:{settings.port}"\nproject = "{DEFAULT_PROJECT}"\nkey = "{key}"\n'
    write_bytes(settings.home / "credentials.toml", text.encode(), mode=0o600)


class _Leadership:
    """Runs the controllers while this process holds the lease; another server's take-over stops them.

    On SQLite a home belongs to one server (it holds the home's lock), so the lease is taken at once.
    """

    def __init__(self, centre: Centre, holder: str) -> None:
        self._centre = centre
        self._holder = holder
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leadership", daemon=True)
        self._runner: LoopRunner | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        lease: Lease | None = None
        swept_at = time.monotonic()
        while not self._stopping.is_set():
            try:
                lease = self._hold(lease)
                if time.monotonic() - swept_at > SWEEP_S:
                    swept_at = time.monotonic()
                    self._sweep()
            except Fenced as error:
                log.warning("another server leads: %s", error)
                lease = None
                self._halt()
            except AtollError as error:
                log.warning("cannot renew the lead: %s", error)
            self._stopping.wait(LEADER_TTL_S / 4)
        self._halt()

    def _hold(self, lease: Lease | None) -> Lease | None:
        leases = self._centre.leases
        if lease is not None:
            if self._runner is not None and self._runner.fenced.is_set():
                raise Fenced(f"the lead of {self._holder} was taken")
            return leases.renew(lease)
        acquire: Callable[[], Lease | None] = (
            (lambda: leases.take(LEADER_LEASE, self._holder))
            if self._centre.database.is_sqlite
            else (lambda: leases.acquire(LEADER_LEASE, self._holder, LEADER_TTL_S))
        )
        lease = acquire()
        if lease is not None:
            loop = Loop(
                self._centre.store,
                self._centre.clock,
                self._centre.controllers(),
                random.Random(),  # noqa: S311 - spreads retries, hides nothing
                lease.fence,
            )
            self._runner = LoopRunner(loop, self._centre.feed)
            self._runner.start()
        return lease

    def _sweep(self) -> None:
        centre = self._centre
        sweep(centre.store, centre.blobs, centre.settings.change_history)
        kept_s = centre.settings.responses_kept_days * 86_400
        forget_responses(centre.database, centre.clock.now() - kept_s)
        forget_projects(centre.database, [p.name for p in centre.store.everything().find_all("Project")])
        forget_tasks(centre.database, {task.uid for task in centre.store.everything().find_all("LabelTask")})

    def _halt(self) -> None:
        if self._runner is not None:
            self._runner.stop()
            self._runner = None
