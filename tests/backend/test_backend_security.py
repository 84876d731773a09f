"""Who may talk to the inference process, and what it shows to the rest."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import wait_for
from fake_system import Step, request

from napari_cellpath.backend import connect
from napari_cellpath.backend.credentials import CREDENTIALS, temporary_security
from napari_cellpath.backend.dask_backend import DaskBackend
from napari_cellpath.backend.local_server import LocalServer
from napari_cellpath.core.errors import BackendError, MissingFileError


def server_of(backend: DaskBackend) -> LocalServer:
    assert backend._dispatcher.link is not None
    assert backend._dispatcher.link.server is not None
    return backend._dispatcher.link.server


def listening(backend: DaskBackend) -> list[Any]:
    launcher = psutil.Process(server_of(backend).pid)
    found = []
    for process in [launcher, *launcher.children(recursive=True)]:
        found += [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    return found


def write_credentials(folder: Path, security: Any) -> Path:
    folder.mkdir()
    fields = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    for name, field in zip(CREDENTIALS, fields, strict=True):
        (folder / name).write_text(getattr(security, field))
    return folder


def test_nothing_listens_beyond_this_machine(backend: DaskBackend) -> None:
    """Every socket of our processes is bound to the loopback address."""
    addresses = listening(backend)
    assert len(addresses) >= 3
    assert {a.ip for a in addresses} == {"127.0.0.1"}


def test_no_page_is_served(backend: DaskBackend) -> None:
    """Dask's own status pages, open even with TLS, are not there on any of our ports."""
    paths = ("/", "/status", "/info/main/workers.html", "/json/identity.json", "/metrics",
             "/health", "/sitemap.json", "/statics/css/base.css")  # fmt: skip
    for address in listening(backend):
        for path in paths:
            connection = http.client.HTTPConnection(address.ip, address.port, timeout=2)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException):
                continue  # a TLS port: no HTTP at all
            body = answer.read()
            if path == "/sitemap.json" and answer.status == 200:
                assert json.loads(body) == {"paths": ["/sitemap.json"]}, "it lists a page"
            else:
                assert answer.status == 404, f"{address} {path}"


def test_strangers_are_refused(backend: DaskBackend, tmp_path: Path) -> None:
    """Without our credentials nobody gets in, and the owner is served as before."""
    from distributed import Client

    address = server_of(backend).address
    with pytest.raises(OSError, match=r".+"):
        Client(address.replace("tls://", "tcp://"), timeout=2, set_as_default=False)
    others = write_credentials(tmp_path / "others", temporary_security())
    stranger = connect(address, credentials=others)
    with pytest.raises(BackendError, match="cannot be reached"):
        stranger.submit(request(Step("square", 2))).result(20)
    stranger.close()
    host, _, port = address.removeprefix("tls://").partition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        context.wrap_socket(plain) as secured,
    ):
        secured.recv(1)
    assert backend.submit(request(Step("square", 2))).result(5) == [4]


def test_secrets_are_on_no_command_line(backend: DaskBackend) -> None:
    """Neither command lines nor environments of our processes hold a key; the log is private."""
    server = server_of(backend)
    assert server.security is not None
    secret = server.security.tls_client_key.splitlines()[3]
    launcher = psutil.Process(server.pid)
    for process in [launcher, *launcher.children(recursive=True)]:
        assert secret not in " ".join(process.cmdline())
        assert secret not in " ".join(process.environ().values())
    assert secret not in server.log.read_text()
    if os.name == "posix":
        assert server.log.stat().st_mode & 0o077 == 0


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A scheduler and worker somebody else runs, with credentials in a folder."""
    security = temporary_security()
    folder = write_credentials(tmp_path / "credentials", security)
    arguments = ["--tls-ca-file", "ca.pem", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "tls://127.0.0.1:0",
         "--port", "0", "--scheduler-file", "where.json", "--no-dashboard", *arguments],
        cwd=folder, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", "where.json",
         "--host", "127.0.0.1", "--no-dashboard", "--no-nanny", "--nthreads", "2", *arguments],
        cwd=folder, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield str(folder / "where.json"), folder
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def test_a_remote_scheduler_serves_the_same_requests(remote: tuple[str, Path]) -> None:
    """With an address and a folder of credentials, everything above works unchanged."""
    where, folder = remote
    wait_for(lambda: Path(where).exists() and Path(where).read_text().endswith("}"), 20)
    backend = connect(json.loads(Path(where).read_text())["address"], "cpu", credentials=folder)
    job = backend.submit(request(Step("square", 3), Step("square", 4, urgent=True)))
    assert job.result(60) == [9, 16]
    assert backend.status().device == "cpu"
    backend.close()


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    """A credentials folder without a key fails with the file's name."""
    (tmp_path / "ca.pem").touch()
    (tmp_path / "cert.pem").touch()
    backend = connect("tls://127.0.0.1:1", credentials=tmp_path)
    with pytest.raises(MissingFileError, match=r"key\.pem does not exist"):
        backend.submit(request(Step("square", 2))).result(10)
    backend.close()
