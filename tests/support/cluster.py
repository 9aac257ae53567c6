"""A cluster of real processes on this machine, for tests: starts them, asks the gateway, kills, freezes and starts them again."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def placement(groups, replicas=1):
    """YAML that gives each range of experts of the demo model (16 per pool) to `replicas` shards labelled with its number."""
    lines = ["epoch: 1", "shards:"]
    for number, experts in enumerate(groups):
        lines += [f"  - match: {{group: g{number}}}", f"    replicas: {replicas}",
                  f'    experts: [{{modality: text, experts: "{experts}"}}, {{modality: vision, experts: "{experts}"}}]']
    return "\n".join(lines) + "\n"


class Cluster:
    """Leaves nothing behind: use it in a with statement."""

    def __init__(self, bin_dir, *, groups=("0-15",), replicas=1, decoders=1, encoders=1, gateways=1, routers=1, dispatch="central", carrier="shm",
                 settings=None, model=None, placement_yaml=None):
        self.bin = pathlib.Path(bin_dir)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="moesaic-"))
        self.carrier = carrier
        self.settings = {"model.compute": "bf16", "engine.threads": "1", "kv.bytes": str(256 << 20), "router.dispatch": dispatch, "limits.drain_seconds": "5",
                         **({"model.dir": str(model)} if model else {}), **(settings or {})}
        self.processes = {}
        self.commands = {}
        self.logs = {}
        self.admin = {}
        (self.folder / "placement.yaml").write_text(placement_yaml or placement(groups, replicas))
        shards = [f"shard-{i}" for i in range(len(groups) * replicas)]
        roles = {**{f"router-{i}": "router" for i in range(routers)}, **{name: "expert-shard" for name in shards},
                 **{f"decoder-{i}": "decoder" for i in range(decoders)}, **{f"vision-encoder-{i}": "vision-encoder" for i in range(encoders)},
                 **{f"gateway-{i}": "gateway" for i in range(gateways)}}
        if carrier == "tcp":
            owners = [f"{role}/{name}" for name, role in roles.items()]
            subprocess.run([self.bin / "moesaic", "keys", "make-all", "--dir", self.folder / "keys", *owners], check=True, stdout=subprocess.DEVNULL)
            self.settings["transport.keys"] = str(self.folder / "keys")
        ports = iter(free_ports(4 * len(roles) + 4))
        control = {name: f"tcp://127.0.0.1:{next(ports)}" for name, role in roles.items() if role == "router"}
        endpoints = ",".join(f"{name}={address}" for name, address in control.items())
        self.ports = {}
        for name, role in roles.items():
            keys = {"node.name": name, "admin.port": str(next(ports)), "router.endpoints": endpoints}
            self.admin[name] = int(keys["admin.port"])
            if role == "router":
                keys |= {"router.listen": control[name], "transport.listen": self.address(name, ports), "placement.file": str(self.folder / "placement.yaml")}
            elif role == "gateway":
                self.ports[name] = next(ports)
                keys["http.port"] = str(self.ports[name])
            else:
                keys["transport.listen"] = self.address(name, ports)
            if role == "expert-shard":
                keys["node.labels"] = f"group=g{shards.index(name) // replicas}"
            self.commands[name] = (role, keys)
        self.roles = roles

    def address(self, name, ports):
        if self.carrier == "tcp":
            return f"tcp://127.0.0.1:{next(ports)}"
        return f"{self.carrier}://{self.folder}/{name}.{'sock' if self.carrier == 'shm' else 'ipc'}"

    def __enter__(self):
        try:
            for name in self.roles:
                self.start(name)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, name):
        role, keys = self.commands[name]
        known = self.known_keys(role)
        flags = []
        for key, value in {**self.settings, **keys}.items():
            if key in known:
                flags += ["--" + key.replace(".", "-").replace("_", "-"), value]
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen([self.bin / f"moesaic-{role}", *flags], stdout=log, stderr=log)
        log.close()

    help_texts = {}

    def known_keys(self, role):
        if role not in self.help_texts:
            self.help_texts[role] = subprocess.run([self.bin / f"moesaic-{role}", "--help"], capture_output=True, text=True, check=True).stdout
        flags = {word.rstrip(",") for word in self.help_texts[role].replace(",", " ").split() if word.startswith("--")}
        return {key for key in [*self.settings, "node.name", "node.labels", "admin.port", "router.endpoints", "router.listen", "transport.listen",
                                "placement.file", "http.port", "transport.keys"] if "--" + key.replace(".", "-").replace("_", "-") in flags}

    def wait_ready(self, timeout=60, gateway="gateway-0"):
        deadline = time.monotonic() + timeout
        while True:
            for name, process in self.processes.items():
                if process.poll() is not None and process.returncode != -signal.SIGKILL:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self.log(name)}")
            with contextlib.suppress(OSError):
                if self.request("GET", "/ready", gateway=gateway, timeout=2)[0] == 200:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError("cluster not ready:\n" + "\n".join(f"--- {name}: {self.ready_detail(name)}\n{self.log(name)[-1500:]}" for name in self.processes))
            time.sleep(0.05)

    def ready_detail(self, name):
        with contextlib.suppress(OSError):
            return self.admin_get(name, "/ready")
        return "no answer"

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def internal_errors(self):
        """Causes of answers 500, which clients do not learn."""
        return [f"{name}: {line}" for name in self.roles for line in self.log(name).splitlines() if "internal: " in line or "dropped unanswered" in line]

    def admin_get(self, name, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin[name], timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def signal(self, name, number):
        self.processes[name].send_signal(number)
        if number == signal.SIGKILL:
            self.processes[name].wait()

    def kill(self, name):
        self.signal(name, signal.SIGKILL)

    def restart(self, name):
        self.kill(name)
        self.start(name)

    def request(self, method, path, document=None, gateway="gateway-0", timeout=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[gateway], timeout=timeout)
        try:
            connection.request(method, path, None if document is None else json.dumps(document), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def chat(self, document, **options):
        status, body = self.request("POST", "/v1/chat/completions", document, **options)
        return status, json.loads(body)

    def stream(self, document, gateway="gateway-0"):
        return stream_of(self.ports[gateway], document)

    def place(self, file, router="router-0"):
        """(exit status, output) of `moesaic place`."""
        address = self.commands[router][1]["router.listen"]
        done = subprocess.run([self.bin / "moesaic", "place", file, "--router", address, "--timeout", "60"], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + 20
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def stream_of(port, document, timeout=120):
    """Yields (seconds since the request, event) of a streamed chat."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        begun = time.monotonic()
        connection.request("POST", "/v1/chat/completions", json.dumps({**document, "stream": True}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            yield time.monotonic() - begun, {"error": json.loads(answer.read())["error"], "status": answer.status}
            return
        while line := answer.readline():
            if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                yield time.monotonic() - begun, json.loads(line[6:])
    finally:
        connection.close()


def text_of(answer):
    """What a client gets of a finished answer, as one comparable value."""
    choice = answer["choices"][0]
    message = choice["message"]
    return message.get("content"), message.get("reasoning_content"), choice["finish_reason"], answer["usage"]["completion_tokens"]


def image_url(path):
    return "data:image/png;base64," + base64.b64encode(pathlib.Path(path).read_bytes()).decode()


def at_once(jobs, workers):
    """Runs all functions on so many threads; their results in order."""
    results = [None] * len(jobs)
    numbers = iter(range(len(jobs)))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            results[number] = jobs[number]()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
