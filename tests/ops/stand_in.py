#!/usr/bin/env python3
"""Stands in for moesaic and its five services in cluster_script_test.py, under whatever name it is called: takes their
options, answers /ready, ends on SIGTERM. MOESAIC_STAND_IN_STATUS=ROLE=N makes that role end at once with status N."""

import http.server
import os
import pathlib
import signal
import sys
import threading

program = pathlib.Path(sys.argv[0]).name
if program == "moesaic":
    if sys.argv[1:3] == ["keys", "make-all"]:
        folder = pathlib.Path(sys.argv[sys.argv.index("--dir") + 1])
        folder.mkdir(mode=0o700, exist_ok=True)
        for owner in sys.argv[sys.argv.index("--dir") + 2:]:
            (folder / f"{owner.replace('/', '-')}.secret").write_text(owner)
    sys.exit(0)

role = program.removeprefix("moesaic-")
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
fault_role, _, status = os.environ.get("MOESAIC_STAND_IN_STATUS", "").partition("=")
if fault_role == role:
    print(f"{role}: the fault that was asked for", flush=True)
    sys.exit(int(status))
secret = pathlib.Path(options["--transport-keys"]) / f"{role}-{options['--node-name']}.secret"
assert secret.is_file(), secret


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        # A gateway is ready when what it needs is.
        self.send_response(404 if self.path != "/ready" else 503 if role == "gateway" and fault_role else 200)
        self.end_headers()
        self.wfile.write(b'{"ready": true}')

    def log_message(self, *arguments):
        pass


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
servers = [http.server.ThreadingHTTPServer((options["--admin-host"], int(options["--admin-port"])), Handler)]
if role == "gateway":
    servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", int(options["--http-port"])), Handler))
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("settings", {key: value for key, value in os.environ.items() if key.startswith("MOESAIC_")}, flush=True)
signal.sigwait({signal.SIGTERM})
print("drained", flush=True)
sys.exit(0)
