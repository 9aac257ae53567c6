#!/usr/bin/env python3
"""Drives `moesaic serve` over HTTP as a client would. Usage: serve_test.py BINARY SOURCE_DIR [unittest arguments]"""

import base64
import concurrent.futures
import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import Server  # noqa: E402

BINARY = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
DEMO = SOURCE / "configs" / "models" / "ernie-vl-demo"
CASES = {case["name"]: case for case in json.loads((DEMO / "cases.json").read_text())["cases"]}


def data_url(name):
    return "data:image/png;base64," + base64.b64encode((DEMO / name).read_bytes()).decode()


def as_request(case):
    def part(p):
        if p["type"] == "image":
            return {"type": "image_url", "image_url": {"url": data_url(p["image"])}}
        if p["type"] == "video":
            return {"type": "video", "video": [data_url(f) for f in p["frames"]], "fps": p["fps"]}
        return p

    messages = [m if isinstance(m["content"], str) else {**m, "content": [part(p) for p in m["content"]]} for m in case["messages"]]
    return {"messages": messages, "temperature": 0, "max_completion_tokens": 160, "chat_template_kwargs": {"enable_thinking": case["thinking"]}}


def expected(case):
    """Reasoning and content of a golden answer: the text around </think>, without the newlines next to it."""
    if not case["thinking"]:
        return None, case["greedy_text"]
    reasoning, content = case["greedy_text"].split("</think>")
    return reasoning.strip("\n"), content.lstrip("\n")


def events_of(server, document):
    """The JSON of every event of a stream; asserts that it ends with [DONE]."""
    status, body = server.request("POST", "/v1/chat/completions", {**document, "stream": True})
    assert status == 200, body
    lines = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines[-1]
    return [json.loads(line) for line in lines[:-1]]


class DemoModelTest(unittest.TestCase):
    """The demo model in f32 against the reference's greedy answers."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(BINARY, "--compute", "f32")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "SIGTERM must end the server with status 0"

    def test_answers_equal_the_reference(self):
        self.assertEqual(len(CASES), 8)
        for name, case in CASES.items():
            with self.subTest(name):
                status, answer = self.server.chat(as_request(case))
                self.assertEqual(status, 200, answer)
                message = answer["choices"][0]["message"]
                reasoning, content = expected(case)
                self.assertEqual(message["content"], content)
                self.assertEqual(message.get("reasoning_content"), reasoning)
                self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
                self.assertEqual(answer["usage"]["completion_tokens"], len(case["greedy_ids"]))
                self.assertEqual(answer["usage"]["prompt_tokens"], len(case["prompt_ids"]))

    def test_streams_say_the_same_piece_by_piece(self):
        for name in ("who", "count_thinking", "video"):
            with self.subTest(name):
                events = events_of(self.server, {**as_request(CASES[name]), "stream_options": {"include_usage": True}})
                reasoning, content = expected(CASES[name])
                deltas = [e["choices"][0]["delta"] for e in events if e["choices"]]
                self.assertEqual(deltas[0].get("role"), "assistant")
                self.assertEqual("".join(d.get("content") or "" for d in deltas), content)
                self.assertEqual("".join(d.get("reasoning_content") or "" for d in deltas), reasoning or "")
                finishes = [e["choices"][0]["finish_reason"] for e in events if e["choices"]]
                self.assertEqual(finishes[-1], "stop")
                self.assertTrue(all(f is None for f in finishes[:-1]))
                self.assertEqual(events[-1]["choices"], [])
                self.assertEqual(events[-1]["usage"]["completion_tokens"], len(CASES[name]["greedy_ids"]))

    def test_many_clients_at_once_get_their_own_answers(self):
        names = list(CASES) * 4
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: self.server.chat(as_request(CASES[n]))[1], names))
        for name, answer in zip(names, answers):
            self.assertEqual(answer["choices"][0]["message"]["content"], expected(CASES[name])[1], name)

    def test_completions_continue_text_and_ids_alike(self):
        prompt = {"prompt": "The", "max_tokens": 6, "temperature": 0}
        status, body = self.server.request("POST", "/v1/completions", prompt)
        self.assertEqual(status, 200, body)
        text = json.loads(body)["choices"][0]["text"]
        ids = json.loads(subprocess.run([BINARY, "tokenize", "--json"], input=b"The", capture_output=True, check=True).stdout)["token_ids"]
        status, body = self.server.request("POST", "/v1/completions", {**prompt, "prompt": ids})
        self.assertEqual(json.loads(body)["choices"][0]["text"], text)

    def test_bad_requests_are_refused_by_name_and_the_server_goes_on(self):
        hello = [{"role": "user", "content": "hi"}]
        table = [
            ({"messages": []}, 400, "missing_required_parameter", "messages"),
            ({"messages": hello, "temperature": -1}, 400, "invalid_value", "temperature"),
            ({"messages": hello, "tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "unsupported_parameter", "tools"),
            ({"messages": [{"role": "user", "content": "word " * 200000}]}, 400, "context_length_exceeded", "messages"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]}]}, 400,
             "invalid_image", None),
            ({"messages": hello, "model": "another"}, 404, "model_not_found", "model"),
        ]
        for document, status, code, param in table:
            with self.subTest(code):
                got, answer = self.server.chat(document)
                self.assertEqual((got, answer["error"]["code"]), (status, code), answer)
                if param is not None:
                    self.assertEqual(answer["error"]["param"], param)
        self.assertEqual(self.server.request("GET", "/health")[0], 200)

    def test_special_tokens_typed_as_text_are_text(self):
        status, answer = self.server.chat({"messages": [{"role": "user", "content": "<|IMAGE_PLACEHOLDER|></s><think>"}], "max_tokens": 1})
        self.assertEqual(status, 200, answer)

    def test_an_idle_server_uses_no_cpu(self):
        self.server.chat(as_request(CASES["who"]))
        time.sleep(0.5)

        def ticks():
            fields = pathlib.Path(f"/proc/{self.server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before = ticks()
        time.sleep(4)
        # 0.5 % of a core over 4 s is 2 ticks of 10 ms.
        self.assertLessEqual(ticks() - before, 2)


class ReadmeTest(unittest.TestCase):
    """The curl lines of the README, as a reader would paste them, against a server with its defaults."""

    def test_every_curl_example_gives_the_answer_it_promises(self):
        server = Server(BINARY)
        try:
            text = (SOURCE / "README.md").read_text()
            paragraphs = text.split("\n\n")
            found = 0
            for block, after in zip(paragraphs, paragraphs[1:]):
                if "curl" not in block or not all(line.startswith("    ") for line in block.strip("\n").split("\n")):
                    continue
                promise = re.search(r'answers "([^"]+)"', after.replace("\n", " "))
                self.assertIsNotNone(promise, after)
                script = re.sub(r"^    ", "", block, flags=re.M).replace(":8080", f":{server.port}")
                done = subprocess.run(["bash", "-c", script], cwd=SOURCE, capture_output=True, text=True, timeout=60)
                out = done.stdout
                if "data: " in out:
                    events = [json.loads(line[6:]) for line in out.split("\n") if line.startswith("data: {")]
                    content = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
                else:
                    content = json.loads(out)["choices"][0]["message"]["content"]
                self.assertEqual(content, promise.group(1), block)
                found += 1
            self.assertGreaterEqual(found, 4)
        finally:
            self.assertEqual(server.stop(), 0)


class LifeCycleTest(unittest.TestCase):
    def test_sigterm_lets_an_open_stream_end(self):
        server = Server(BINARY)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True,
                                                                       "ignore_eos": True, "max_completion_tokens": 200}),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        start = answer.read(50)
        server.process.send_signal(signal.SIGTERM)
        rest = answer.read()
        connection.close()
        self.assertTrue((start + rest).rstrip().endswith(b"data: [DONE]"), rest[-200:])
        self.assertIn(b'"finish_reason":"length"', rest)
        self.assertEqual(server.process.wait(20), 0)

    def test_experts_behind_shards_answer_alike(self):
        answers = []
        for experts in ("local", "routed:4"):
            server = Server(BINARY, "--experts", experts)
            answers.append([server.chat(as_request(CASES[name]))[1]["choices"][0]["message"]["content"] for name in ("story", "describe", "sum_thinking")])
            self.assertEqual(server.stop(), 0)
        self.assertEqual(answers[0], answers[1])

    def test_bad_settings_are_one_line_and_status_3(self):
        for arguments, part in ((["--compute", "f16"], "f16"), (["--http-host", "0.0.0.0"], "0.0.0.0"), (["--model", "/nonexistent"], "/nonexistent"),
                                (["--config", "/nonexistent.yaml"], "/nonexistent.yaml"), (["--experts", "routed:0"], "routed:0")):
            done = subprocess.run([BINARY, "serve", "--http-port", "0", *arguments], capture_output=True, text=True, timeout=60)
            self.assertIn(done.returncode, (3, 4), arguments)
            self.assertEqual(len(done.stderr.strip().split("\n")), 1, done.stderr)
            self.assertIn(part, done.stderr)

    def test_a_port_in_use_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = subprocess.run([BINARY, "serve", "--http-port", str(port)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn(str(port), done.stderr)

    def test_settings_come_from_file_environment_and_flags(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
            config.write("model:\n  name: from-file\n  compute: f32\n")
            config.flush()
            server = Server(BINARY, "--config", config.name)
            self.assertEqual(json.loads(server.request("GET", "/v1/models")[1])["data"][0]["id"], "from-file")
            server.stop()
            server = Server(BINARY, "--config", config.name, environment={"MOESAIC_MODEL_NAME": "from-environment"})
            self.assertEqual(json.loads(server.request("GET", "/v1/models")[1])["data"][0]["id"], "from-environment")
            server.stop()
            server = Server(BINARY, "--config", config.name, "--model-name", "from-flag", environment={"MOESAIC_MODEL_NAME": "from-environment"})
            self.assertEqual(json.loads(server.request("GET", "/v1/models")[1])["data"][0]["id"], "from-flag")
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
