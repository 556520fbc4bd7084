import gc
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core import landlock
from atoll.core.errors import Unavailable
from atoll.data.engine.read.formats import DOCUMENTS
from atoll.data.engine.read.item import File, Found, Item, Limits, Part, Quarantined
from atoll.data.engine.read.sandbox import Sandbox, sandbox
from atoll.data.engine.runtimes.worker import serve

PART = Part("s0", patterns=DOCUMENTS)
SMALL = Limits(parser_memory_bytes=400 << 20)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    made = Sandbox(SMALL)
    yield made
    made.close()


def _read(box: Sandbox, path: Path) -> list[Item]:
    file = File(path.name, str(path), path.stat().st_size)
    return list(box.items(file, PART))


def _page(tmp_path: Path, name: str = "a.html") -> Path:
    (tmp_path / name).write_text("<p>words")
    return tmp_path / name


def _child(box: Sandbox) -> int:
    assert box._child
    return box._child.pid


def _open_files(pid: int | str = "self") -> int:
    gc.collect()  # what tests before this one left is closed now, not while we count
    return len(os.listdir(f"/proc/{pid}/fd"))


def _endless_pdf(path: Path) -> Path:
    """A small PDF whose page has millions of operators."""
    content = zlib.compress(b"BT /F 9 Tf " + b"(x) Tj 5 0 Td " * 1_000_000 + b"ET")
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 5 0 R/Resources<</Font<</F 4 0 R>>>>>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d/Filter/FlateDecode>>\nstream\n%s\nendstream" % (len(content), content),
    ]
    body, places = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    path.write_bytes(body + table + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(body))
    return path


def test_one_child_reads_many_files_and_leaks_none(box: Sandbox, tmp_path: Path) -> None:
    pages = [_page(tmp_path, f"{number}.html") for number in range(30)]
    _read(box, pages[0])
    child, ours, theirs = _child(box), _open_files(), _open_files(_child(box))
    assert [item.text for page in pages for item in _read(box, page) if isinstance(item, Found)] == ["words"] * 30
    assert (_child(box), _open_files(), _open_files(child)) == (child, ours, theirs)
    box.close()
    assert _open_files() == ours - 2
    assert not Path(f"/proc/{child}").exists()


def test_a_file_that_takes_too_long_is_quarantined_and_the_next_is_read(tmp_path: Path) -> None:
    box = Sandbox(Limits(parser_memory_bytes=400 << 20, parser_s=1))
    assert _read(box, _endless_pdf(tmp_path / "a.pdf")) == [
        Quarantined("a.pdf", 0, "its parser took more than 1 s of CPU time")
    ]
    assert isinstance(_read(box, _page(tmp_path))[0], Found)
    box.close()


def test_a_file_that_takes_too_much_memory_is_quarantined_and_the_next_is_read(tmp_path: Path) -> None:
    box = Sandbox(Limits(parser_memory_bytes=200 << 20))
    (tmp_path / "a.json").write_bytes(b"[" + b"{}," * 4_000_000 + b"{}]")
    (refused,) = _read(box, tmp_path / "a.json")
    assert isinstance(refused, Quarantined)
    assert "memory" in refused.reason
    assert isinstance(_read(box, _page(tmp_path))[0], Found)
    box.close()


def test_a_table_of_one_long_text_named_by_every_row_is_quarantined(box: Sandbox, tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array(["a" * (8 << 20)]))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert path.stat().st_size < 10_000
    (refused,) = _read(box, path)
    assert isinstance(refused, Quarantined) and "memory" in refused.reason
    assert isinstance(_read(box, _page(tmp_path))[0], Found)


def test_a_child_that_dies_in_a_file_spoils_only_that(box: Sandbox, tmp_path: Path) -> None:
    text = "x" * 1000
    (tmp_path / "a.json").write_text("[" + ",".join([f'{{"text": "{text}"}}'] * 2000) + "]")
    items = box.items(File("a.json", str(tmp_path / "a.json"), 0), PART)
    assert isinstance(next(items), Found)
    os.kill(_child(box), signal.SIGKILL)
    assert list(items)[-1] == Quarantined(
        "a.json", 0, "its parser was ended by SIGKILL; it may have 419430400 bytes of memory"
    )
    assert isinstance(_read(box, _page(tmp_path))[0], Found)


def test_a_child_that_died_between_files_spoils_none(box: Sandbox, tmp_path: Path) -> None:
    _read(box, _page(tmp_path))
    os.kill(_child(box), signal.SIGKILL)
    assert isinstance(_read(box, _page(tmp_path))[0], Found)


def test_a_reader_that_stops_early_leaves_nothing_for_the_next(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "one"}, {"text": "two"}]')
    items = box.items(File("a.json", str(tmp_path / "a.json"), 0), PART)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert [item.text for item in _read(box, _page(tmp_path)) if isinstance(item, Found)] == ["words"]


def test_a_child_cannot_write_files_and_sees_no_secrets(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hidden")
    _read(box, _page(tmp_path))
    limits = Path(f"/proc/{_child(box)}/limits").read_text()
    assert "Max file size             0 " in limits
    assert "hidden" not in Path(f"/proc/{_child(box)}/environ").read_text()


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_a_child_reaches_no_file_but_the_one_it_is_sent_and_its_libraries(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden")
    program = (
        "import importlib, os, sys\n"
        "from atoll.data.engine.read.child import confine\n"
        "from atoll.data.engine.read.dispatch import READERS\n"
        "confine(os.getppid(), 1 << 30)\n"
        "for name in READERS.values():\n"
        "    importlib.import_module(name)\n"
        "for name in ('pypdf', 'openpyxl', 'docx', 'resiliparse.extract.html2text', 'zstandard', 'mimetypes'):\n"
        "    importlib.import_module(name)\n"
        "try:\n"
        "    open(sys.argv[1])\n"
        "except PermissionError:\n"
        "    print('denied')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "secret")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "denied\n", done.stderr


ONE_PAGE = (
    "import sys\n"
    "from pathlib import Path\n"
    "from atoll.core.errors import Unavailable\n"
    "from atoll.data.engine.read.item import File, Limits, Part\n"
    "from atoll.data.engine.read.sandbox import Sandbox\n"
    "box = Sandbox(Limits())\n"
    "try:\n"
    "    print(*(item.text for item in box.items(File('a.html', sys.argv[1], 0), Part(''))))\n"
    "    print(Path(f'/proc/{box._child.pid}/environ').read_text())\n"
    "except Unavailable as error:\n"
    "    print(error)\n"
)


def _said(command: list[str], folder: Path, **variables: str) -> str:
    """What a program that reads one page in `folder` prints."""
    environment = {**os.environ, **variables}
    command = [*command, str(_page(folder))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_that_cannot_be_confined_is_no_fault_of_the_file(tmp_path: Path) -> None:
    box = Sandbox(Limits(parser_memory_bytes=1 << 63))  # which no kernel can be told
    with pytest.raises(Unavailable, match="the process of the parsers cannot be confined: "):
        _read(box, _page(tmp_path))
    assert box._child is None


def test_a_child_that_cannot_start_is_no_fault_of_the_file(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "orjson.py").write_text("raise ImportError('half installed')")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(Unavailable, match="could not start: its parser ended with status 1"):
            _read(box, _page(tmp_path))
    assert "half installed" in capfd.readouterr().err
    assert isinstance(_read(box, _page(tmp_path))[0], Found)


def test_a_reader_that_cannot_be_loaded_is_no_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "selectolax.py").write_text("import half_of_it")
    said = _said([sys.executable, "-c", ONE_PAGE], tmp_path, PYTHONPATH=str(tmp_path))
    assert said.startswith("the reader page cannot be loaded: No module named 'half_of_it'")


@pytest.mark.parametrize("before", ["ulimit -n 32", "ulimit -v 900000", "exec 2>&-", "exec 0<&-"])
def test_a_child_lives_with_less_than_it_may_have(tmp_path: Path, before: str) -> None:
    said = _said(["sh", "-c", f'{before}; exec "$@"', "sh", sys.executable, "-c", ONE_PAGE], tmp_path)
    assert said.startswith("words\n")


def test_the_folder_a_program_was_started_in_is_none_of_libraries(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(ONE_PAGE)
    said = _said([sys.executable, "-m", "program"], tmp_path)
    assert said.startswith("words\n") and str(tmp_path) not in said
    assert str(tmp_path) not in _said([sys.executable, str(tmp_path / "program.py")], tmp_path)
    assert str(tmp_path) in _said([sys.executable, "-m", "program"], tmp_path, PYTHONPATH=".")


def test_packages_may_be_links_to_one_copy_for_all_environments(tmp_path: Path) -> None:
    for name in ("store/words/__init__.py", "store/words-1.dist-info/METADATA"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        (tmp_path / name.replace("store", "packages")).parent.mkdir(parents=True)
        (tmp_path / name.replace("store", "packages")).symlink_to(tmp_path / name)
    program = (
        "import os\nfrom atoll.data.engine.read.child import confine\nconfine(os.getppid(), 1 << 30)\nimport words"
    )
    path = os.pathsep.join([str(tmp_path / "packages"), *filter(None, sys.path)])
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": path})


def test_a_file_that_may_not_be_opened_is_quarantined_and_the_next_is_read(box: Sandbox, tmp_path: Path) -> None:
    gone = File("gone.html", str(tmp_path / "gone.html"), 0)
    assert list(box.items(gone, PART)) == [Quarantined("gone.html", 0, "cannot be read: No such file or directory")]
    assert isinstance(_read(box, _page(tmp_path))[0], Found)


def test_each_thread_has_a_sandbox_of_its_own() -> None:
    found: list[Sandbox] = []
    thread = threading.Thread(target=lambda: found.append(sandbox(SMALL)))
    thread.start()
    thread.join()
    assert sandbox(SMALL) is sandbox(SMALL)
    assert found[0] is not sandbox(SMALL)


def test_a_worker_that_is_done_ends_its_child(tmp_path: Path) -> None:
    box = sandbox(SMALL)
    _read(box, _page(tmp_path))
    calls, ours = Pipe(duplex=False)
    ours.close()
    serve(calls, ours)
    assert box._child is None


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(tmp_path: Path, ending: signal.Signals) -> None:
    program = (
        "import sys, time\n"
        "from atoll.data.engine.read.item import File, Limits, Part\n"
        "from atoll.data.engine.read.sandbox import sandbox\n"
        "box = sandbox(Limits())\n"
        "list(box.items(File('a.html', sys.argv[1], 0), Part('')))\n"
        "print(box._child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(_page(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        os.kill(parent.pid, ending)
    _wait_until_gone(child)


def _wait_until_gone(pid: int) -> None:
    until_s = time.monotonic() + 60
    while _is_running(pid):
        assert time.monotonic() < until_s, f"process {pid} lives on"
        time.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
