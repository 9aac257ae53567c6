"""The undisturbed run: the same questions to one process."""

import contextlib
import http.client
import json
import pathlib
import subprocess
import tempfile
import time

from cluster import at_once, free_ports, text_of


def answers_of_one_process(bin_dir, questions, settings=()):
    """What `moesaic serve` answers to each, as text_of."""
    port = free_ports(1)[0]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([pathlib.Path(bin_dir) / "moesaic", "serve", "--http-port", str(port), *settings], stdout=log, stderr=log)
        try:
            ask(port, "GET", "/ready", wait_s=60)
            answers = at_once([lambda q=q: ask(port, "POST", "/v1/chat/completions", q) for q in questions], workers=8)
        finally:
            process.terminate()
            process.wait(30)
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
