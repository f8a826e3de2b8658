"""agileact study report and watch, as a user types them."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agileact import ArgumentError, StoreError, cli
from agileact.study.report.document import report_document, write_report
from agileact.study.report.watch import Server
from agileact.study.results.export import TABLES
from agileact.study.results.source import stored, told
from agileact.study.running.conduct import conduct
from agileact.study.running.executors import Event, Finished, Started
from agileact.study.running.planner import plan
from agileact.study.running.store import Store
from agileact.study.spec.record import write_record
from agileact.study.spec.trial import TrialSpec
from tests.study.report.builders import made_up, small_study

STUDY = small_study(tasks=small_study().tasks[1:])


class MadeUp:
    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Event]:
        for spec in specs:
            yield Started(spec)
            yield Finished(spec, made_up(spec))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("한국어 study")
    with Store(out / "store.sqlite") as store:
        conduct(STUDY, store, MadeUp())
    write_record(out, STUDY, command="agileact study run small.yaml", data={"diabetes-mlp": "made up"})
    return out


def run(capsys, *arguments):
    code = cli.main(["study", *map(str, arguments)])
    return code, capsys.readouterr()


def test_a_folder_or_its_store_becomes_a_file(folder, tmp_path, capsys):
    before = sorted(folder.iterdir())
    for source in (folder, folder / "store.sqlite"):
        target = tmp_path / source.name / "report.html"
        code, captured = run(capsys, "report", source, "-o", target)
        assert code == 0, captured.err
        assert captured.err == f"Report: {target}\n"
        text = target.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert "agileact study run small.yaml" in text
    # Nothing is written beside the store, so that it can lie in a folder that cannot be written.
    assert sorted(folder.iterdir()) == before


def test_two_folders_become_one_file(folder, tmp_path, capsys):
    target = tmp_path / "both.html"
    code, captured = run(capsys, "report", folder, folder / "store.sqlite", "-o", target)
    assert code == 0, captured.err
    assert "Studies side by side" in target.read_text(encoding="utf-8")


def test_every_table_is_exported_by_name(folder, tmp_path, capsys):
    spec = tmp_path / "small.yaml"
    for table, column in (
        ("trials", "parameters"),
        ("curves", "iteration"),
        ("tuning", "chosen"),
        ("sensitivity", "low"),
    ):
        rows = TABLES[table](stored(folder).read())
        assert rows
        assert column in rows[0]
    with pytest.raises(SystemExit):
        run(capsys, "export", spec, "--table", "nothing", "--csv", "-")
    assert "sensitivity" in capsys.readouterr().err


def test_without_a_name_the_report_lies_beside_the_store(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert run(capsys, "report", copy)[0] == 0
    assert (copy / "report.html").stat().st_size < 2_000_000


def test_a_file_that_cannot_be_written_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, captured = run(capsys, "report", folder, "-o", tmp_path / "file" / "report.html")
    assert code == 1
    assert "cannot write" in captured.err
    assert captured.err.endswith("name another file with -o\n")


def test_a_difference_that_matters_is_part_of_the_verdict(folder):
    assert "would matter" in json.dumps(report_document(stored(folder).read(matters=1.0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "there is no store of trials at none"),
        (["FOLDER", "--out", "x"], "--out is for a study's YAML file"),
        (["FOLDER", "--sharded"], "--sharded is for a study's YAML file"),
        (["EMPTY"], "there is no study.json in"),
        (["TEXT"], "cannot be read as a store of trials"),
        (["none.yaml"], "none.yaml"),
    ],
)
def test_what_cannot_be_reported_is_one_line(folder, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    shutil.copy(folder / "store.sqlite", tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "store.sqlite").write_text("no database" * 100)
    shutil.copy(folder / "study.json", tmp_path / "text")
    places = {"FOLDER": folder, "EMPTY": tmp_path / "empty", "TEXT": tmp_path / "text"}
    code, captured = run(capsys, "report", *(places.get(one, one) for one in arguments), "-o", tmp_path / "r.html")
    assert code == 1
    assert captured.err.startswith("agileact: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_a_known_study_needs_no_record(folder, tmp_path):
    shutil.copy(folder / "store.sqlite", tmp_path)
    write_report(told(STUDY, tmp_path / "store.sqlite").read(), tmp_path / "r.html")
    assert "is not recorded" in (tmp_path / "r.html").read_text(encoding="utf-8")
    with pytest.raises(StoreError, match="no store of trials"):
        told(STUDY, tmp_path / "other" / "store.sqlite").read()


# -- watch ----------------------------------------------------------------------------------------------


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, host: str | None = None, method: str = "GET", **more: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{self.port}", **more})
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    def state(self, version: str = "") -> Any:
        status, text = self.get(f"/state?version={version}")
        assert status == 200
        return json.loads(text)


def _done(count: int) -> Callable[[Any], bool]:
    return lambda document: document["done"] == count


@pytest.fixture
def serve():
    started = []

    def start(source, **options):
        server = Server(source, 0, **options)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        started.append((server, thread))
        return Client(server.server_port)

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def news(client: Client, version: str, wanted: Callable[[Any], bool]) -> Any:
    """Ask until the document is the wanted one; the server takes its time between two readings."""
    for _ in range(600):
        state = client.state(version)
        if state["document"] is not None and wanted(state["document"]):
            return state
        time.sleep(0.05)
    raise AssertionError(f"no such news: {state}")


def test_the_page_follows_a_study_from_before_its_first_trial(tmp_path, serve):
    out = tmp_path / "later"
    client = serve(stored(out))
    status, text = client.get("/")
    assert status == 200
    assert "Waiting for the study to begin" in text
    state = client.state()
    assert state["document"]["arms"] == []
    assert client.state(state["version"])["document"] is None
    specs = plan(STUDY, lambda spec: None).next
    with Store(out / "store.sqlite") as store:
        write_record(out, STUDY)
        state = news(client, state["version"], lambda document: document["arms"])
        assert state["document"]["done"] == 0
        # The runner holds the store's lock all the while, and is not disturbed.
        for count, spec in enumerate(specs[:3], 1):
            store.put(made_up(spec))
            state = news(client, state["version"], _done(count))
    assert not state["trouble"]
    shutil.rmtree(out)
    for _ in range(100):
        trouble = client.state(state["version"])["trouble"]
        if trouble:
            break
        time.sleep(0.05)
    assert "there is no store of trials" in trouble
    # Begun anew: nothing that was read of the store before counts.
    with Store(out / "store.sqlite") as store:
        write_record(out, STUDY)
        store.put(made_up(specs[4]))
        state = news(client, "", lambda document: document["done"] in (1, 4))
        assert state["document"]["done"] == 1


@pytest.mark.parametrize("host", ["example.com", "example.com:80", "127.0.0.1", "127.0.0.1:1", "localhost"])
def test_other_hosts_are_refused(folder, serve, host):
    client = serve(stored(folder))
    status, text = client.get("/state", host=host)
    assert (status, text) == (403, "This page is for this machine alone.\n")


def test_other_pages_are_refused(folder, serve):
    client = serve(stored(folder))
    for origin in ("http://example.com", "null", f"http://localhost:{client.port}", f"https://127.0.0.1:{client.port}"):
        assert client.get("/state", Origin=origin)[0] == 403, origin
    assert client.get("/state", Origin=f"http://127.0.0.1:{client.port}")[0] == 200


def test_only_the_page_and_its_state_are_there(folder, serve):
    client = serve(stored(folder))
    assert client.get("/store.sqlite")[0] == 404
    assert client.get("/../study.json")[0] == 404
    assert client.get("/", method="POST")[0] == 501
    assert client.get("/", method="HEAD") == (200, "")
    assert client.get("/state", host=f"localhost:{client.port}")[0] == 200


def test_a_port_that_is_taken_is_an_error_that_says_so(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ArgumentError, match=rf"port {port} of 127.0.0.1 is not available .*--port"):
            Server(stored(folder), port)
        code, captured = run(capsys, "watch", folder, "--port", port)
    assert code == 1
    assert f"port {port} of 127.0.0.1 is not available" in captured.err


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_what_is_no_port_is_refused(folder, port, capsys):
    with pytest.raises(SystemExit):
        cli.main(["study", "watch", str(folder), "--port", port])
    assert "is not a port" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_the_command(folder):
    command = [sys.executable, "-m", "agileact.cli", "study", "watch", str(folder), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
        # A shell that starts the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Watching ")
    address = next(word for word in line.split() if word.startswith("http"))
    client = Client(int(address.rstrip("/").rpartition(":")[2]))
    assert client.get("/")[0] == 200
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=240)
    assert (process.returncode, out, errors) == (0, "", "Stopped watching.\n")
