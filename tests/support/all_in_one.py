"""One process that has every service: the undisturbed run of a cluster's questions, and what is tested by itself."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from cluster import at_once, free_ports, text_of


class Server:
    """`moesaic serve` on a port of its own, ready when made, ended by SIGTERM."""

    def __init__(self, binary, *arguments, environment=None):
        self.port = free_ports(1)[0]
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.process = subprocess.Popen([binary, "serve", "--http-port", str(self.port), *arguments], stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(environment or {})})
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"server ended with {self.process.returncode}: {pathlib.Path(self.log.name).read_text()}")
            with contextlib.suppress(OSError):
                if self.request("GET", "/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError("server not ready")

    def request(self, method, path, document=None, headers=None):
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def chat(self, document):
        status, body = self.request("POST", "/v1/chat/completions", document)
        return status, json.loads(body)

    def stop(self):
        """The exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        self.log.close()
        return status


def answers_of_one_process(bin_dir, questions, settings=()):
    """What `moesaic serve` answers to each, as text_of."""
    server = Server(pathlib.Path(bin_dir) / "moesaic", *settings)
    try:
        answers = at_once([lambda q=q: server.chat(q) for q in questions], workers=8)
    finally:
        server.stop()
    assert all(status == 200 for status, _ in answers), answers
    return [text_of(answer) for _, answer in answers]


def ask(port, method, path, document=None, wait_s=0):
    """Status and JSON; asks again for up to `wait_s` until the status is 200."""
    deadline = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(ConnectionError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            connection.request(method, path, None if document is None else json.dumps(document), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            connection.close()
            if answer.status == 200 or wait_s == 0:
                return answer.status, body
        if time.monotonic() > deadline:
            raise RuntimeError(f"port {port}: no 200 for {path} in {wait_s} s")
        time.sleep(0.05)
