#!/usr/bin/env python3
"""Who may include whom. Linking cannot enforce it: every header sits below one include root, or in the system's.

  .ci/check_includes.py [ROOT]     prints each forbidden include as file:line: text, exit status 1 if there is one
  .ci/check_includes.py --self-test   proves that each rule finds its violation and lets its neighbour pass
"""

import pathlib
import re
import sys
import tempfile

# What a folder of common/ may include of common/, beside itself; all but base also base and metrics.
COMMON = {
    "base": set(),
    "metrics": set(),
    "tensor": set(),
    "kernels": {"tensor"},
    "quantize": {"tensor", "kernels"},
    "model": {"tensor", "kernels", "quantize"},
    "kv_cache": {"tensor", "kernels"},
    "sampling": {"tensor", "kernels"},
    "engine": {"tensor", "kernels", "quantize", "model", "kv_cache", "sampling", "transport", "cluster", "trace"},
    "cluster": {"transport", "http", "tensor"},
    "chat": {"tokenizer", "http", "tensor"},
    "api": {"tokenizer", "http", "tensor"},
    "trace": {"http", "tensor"},
}
OTHERS = {"tensor"}  # config, tokenizer, media, transport, http

# (what the text between < > or " " starts with, the only paths that may say so, the reason). tests/ may include everything.
WRAPPED = (
    (r"caf/", r"(actors|services)/", "CAF stays in actors/ and services/"),
    (r"zmq(_addon)?\.h", r"common/transport/", "ZeroMQ stays in common/transport"),
    (r"boost/(beast|asio)", r"(common/http/|services/gateway/main\.cpp$)", "Beast and Asio stay in common/http and the gateway's main"),
    (r"(cuda|cublas|cudnn|nccl|device_launch_parameters|cooperative_groups)", r"(.*\.cu$|common/kernels/cuda/)", "CUDA stays in *.cu and kernels/cuda"),
)
# All that common/base may include besides the standard library and the system's own headers.
BASE_LIBRARIES = re.compile(r"(tl|spdlog|fmt)/")
STANDARD = re.compile(r"([a-z_]+|c[a-z]+|[a-z0-9_]+\.h|(sys|linux|arpa|net|netinet)/[a-z0-9_]+\.h)$")

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = (".hpp", ".cpp", ".cu", ".h", ".inc")
OURS = ("common", "actors", "services", "tests")


def forbidden(path: str, quote: str, included: str) -> str | None:
    """Why the file at `path` (from the root) must not include `included`; None if it may."""
    top, *rest = path.split("/")
    folder = rest[0] if len(rest) > 1 else ""
    to_top, *to_rest = included.split("/")
    to_folder = to_rest[0] if len(to_rest) > 1 else ""
    if to_top == "tests" and top != "tests":
        return "nothing includes tests/"
    if top == "tests":
        return None
    if quote == '"' and to_top not in OURS:
        return "our own headers are included from the root, others in < >"
    for what, where, reason in WRAPPED:
        if re.match(what, included) and not re.match(where, path):
            return reason
    if top == "common" and folder == "base" and quote == "<" and not (STANDARD.match(included) or BASE_LIBRARIES.match(included)):
        return "common/base knows the standard library, tl and the log library only"
    if to_top not in OURS or (to_top, to_folder) == (top, folder):
        return None
    if top == "common":
        if to_top != "common":
            return f"common/ does not know {to_top}/"
        allowed = COMMON.get(folder, OTHERS) | (set() if folder == "base" else {"base", "metrics"})
        return None if to_folder in allowed else f"common/{folder} may include of common/ only: {', '.join(sorted(allowed)) or 'nothing'}"
    if top == "actors":
        if to_top == "services":
            return "actors/ does not know services/"
        if to_top == "actors" and (folder == "contracts" or to_folder != "contracts"):
            return "an actor is reached through its contract in actors/contracts"
    if top == "services" and to_top == "services":
        return "services do not include each other"
    return None


def violations(root: pathlib.Path) -> list[str]:
    found = []
    for file in sorted(p for top in OURS for p in (root / top).rglob("*") if p.suffix in SOURCES):
        path = file.relative_to(root).as_posix()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if (match := INCLUDE.match(line)) and (reason := forbidden(path, *match.groups())):
                found.append(f"{path}:{number}: {match[2]}: {reason}")
    return found


BAD = (
    ("common/base/a.hpp", '"common/tensor/view.hpp"'),
    ("common/base/a.hpp", "<boost/json.hpp>"),
    ("common/tensor/a.hpp", '"common/kernels/norm.hpp"'),
    ("common/kernels/cpu/a.cpp", '"common/model/weights.hpp"'),
    ("common/model/a.hpp", '"common/engine/request.hpp"'),
    ("common/media/image/a.hpp", '"common/kernels/norm.hpp"'),
    ("common/engine/a.cpp", '"actors/contracts/actors.hpp"'),
    ("common/engine/a.cpp", "<caf/all.hpp>"),
    ("common/engine/a.cpp", "<zmq.hpp>"),
    ("common/api/a.cpp", "<boost/beast/http.hpp>"),
    ("services/all_in_one/main.cpp", "<boost/asio.hpp>"),
    ("common/kernels/a.cpp", "<cuda_runtime.h>"),
    ("common/kernels/a.cpp", '"tests/support/golden.hpp"'),
    ("common/kernels/a.cpp", '"norm.hpp"'),
    ("actors/contracts/a.hpp", '"actors/router/router.hpp"'),
    ("actors/decoder/a.cpp", '"actors/router/router.hpp"'),
    ("actors/decoder/a.cpp", '"services/all_in_one/commands/serve.hpp"'),
    ("services/router/main.cpp", '"services/decoder/settings.hpp"'),
)
GOOD = (
    ("common/base/b.hpp", "<tl/expected.hpp>"),
    ("common/base/b.cpp", "<sys/mman.h>"),
    ("common/base/b.cpp", '"common/base/result.hpp"'),
    ("common/kernels/cpu/b.cpp", '"common/tensor/view.hpp"'),
    ("common/kernels/b.cu", "<cuda_runtime.h>"),
    ("common/engine/b.cpp", '"common/model/weights.hpp"'),
    ("common/engine/b.cpp", '"common/metrics/metrics.hpp"'),
    ("common/transport/b.cpp", "<zmq.hpp>"),
    ("common/http/b.cpp", "<boost/asio.hpp>"),
    ("services/gateway/main.cpp", "<boost/asio/io_context.hpp>"),
    ("actors/decoder/b.cpp", '"actors/contracts/actors.hpp"'),
    ("actors/decoder/b.cpp", "<caf/all.hpp>"),
    ("services/all_in_one/commands/b.cpp", '"actors/decoder/decoder.hpp"'),
    ("tests/unit/engine/b.cpp", '"tests/support/golden.hpp"'),
    ("tests/unit/engine/b.cpp", "<zmq.hpp>"),
)


def self_test() -> int:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, included in BAD + GOOD:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            with (root / path).open("a", encoding="utf-8") as file:
                file.write(f"#include {included}\n")
        found = {line.split(": ", 2)[0].rsplit(":", 1)[0] + " " + line.split(": ", 2)[1] for line in violations(root)}
    wanted = {f"{path} {included[1:-1]}" for path, included in BAD}
    for line in sorted(wanted - found):
        print(f"not found: {line}")
    for line in sorted(found - wanted):
        print(f"wrongly found: {line}")
    return 0 if found == wanted else 1


def main() -> int:
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    found = violations(root)
    print("\n".join(found) if found else "includes: in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
