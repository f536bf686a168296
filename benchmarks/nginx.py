"""nginx with one worker, on one core: what our figures are compared with, and an upstream that costs little."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import until

# The log is what a download server keeps of each answer, one line of JSON.
_CONFIG = r"""
daemon off; worker_processes 1; error_log {folder}/error.log; pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    log_format event escape=json '{{"time":"$msec","id":"$request_id","host":"$host","method":"$request_method",'
        '"path":"$uri","status":$status,"user_agent":"$http_user_agent","referer":"$http_referer",'
        '"address":"$remote_addr"}}';
    access_log {folder}/access.log event buffer=64k flush=1s;
    keepalive_requests 1000000000;
    {servers}
}}
"""


@contextmanager
def nginx(folder: Path, core: int, servers: str) -> Iterator[int]:
    """Process id of its worker. `servers`: what stands in its `http` block besides the log."""
    folder.mkdir()
    # Whom root's nginx runs its workers as must be able to write here.
    folder.chmod(0o777)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, servers=servers))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program is not None, "nginx is not installed"
    process = subprocess.Popen(["taskset", "-c", str(core), program, "-p", str(folder), "-c", str(config)])
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        worker = until(lambda: children.read_text().split(), what="nginx to start")
        assert isinstance(worker, list)
        yield int(worker[0])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
