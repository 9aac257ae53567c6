#!/usr/bin/env python3
"""configs/services/*.yaml name every key of their program with its default, and the program's own words.
Usage: service_files_test.py SOURCE_DIR PROGRAM_DIR [unittest arguments]; with --write instead, writes the files."""

import pathlib
import re
import subprocess
import sys
import unittest

from needs import needs

SOURCE, PROGRAMS = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
COMMANDS = {"all_in_one": ["moesaic", "serve"], **{service.replace("-", "_"): [f"moesaic-{service}"]
            for service in ("gateway", "vision-encoder", "router", "expert-shard", "decoder")}}


def options_of(command):
    """[(key, help, default)] from --help, in its order."""
    path = PROGRAMS / command[0]
    needs(path.is_file(), str(path))
    text = subprocess.run([path, *command[1:], "--help"], capture_output=True, text=True, check=True).stdout
    found = []
    section = None
    for line in text.splitlines():
        if heading := re.fullmatch(r"([a-z]+):", line):
            section = heading.group(1)
        elif section and (option := re.fullmatch(r"  --(\S+) TEXT\s*(.*)", line)):
            name = option.group(1).split(",")[0]
            assert name.startswith(section + "-"), name
            found.append([f"{section}.{name[len(section) + 1:].replace('-', '_')}", option.group(2)])
        elif section and line.startswith(" " * 10):
            found[-1][1] += line.strip()
    for option in found:
        default = re.search(r" ?\[([^\[\]]*)\]$", option[1])
        option[1:] = [option[1][:default.start()] if default else option[1], default.group(1) if default else ""]
    return found


def file_of(command):
    program = " ".join(command)
    lines = [f"# Every key of `{program}` with its default: --config FILE reads such a file. A key a.b_c is also the flag --a-b-c",
             "# and the environment variable MOESAIC_A_B_C; flags win over the environment, the environment over the file."]
    section = None
    for key, words, default in options_of(command):
        if key.split(".")[0] != section:
            section = key.split(".")[0]
            lines.append(f"{section}:")
        value = default if re.fullmatch(r"\d+|[a-z][a-z0-9-]*", default) and default not in ("yes", "no") else f'"{default}"'
        lines.append(f"  {key.split('.')[1]}: {value}  # {words}")
    return "\n".join(lines) + "\n"


class ServiceFilesTest(unittest.TestCase):
    def test_files_say_what_the_programs_say(self):
        for name, command in COMMANDS.items():
            with self.subTest(name):
                self.assertGreater(len(options_of(command)), 10)
                self.assertEqual((SOURCE / "configs" / "services" / f"{name}.yaml").read_text(), file_of(command))

    def test_programs_take_their_files(self):
        # A model that is not there ends the program after its settings were read; without one a bad key would be the reason.
        for name, command in COMMANDS.items():
            with self.subTest(name):
                done = subprocess.run([PROGRAMS / command[0], *command[1:], "--config", SOURCE / "configs" / "services" / f"{name}.yaml",
                                       "--model-dir", "/nonexistent"], capture_output=True, text=True, timeout=60)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("/nonexistent", done.stderr)


if __name__ == "__main__":
    if sys.argv[3:] == ["--write"]:
        for name, command in COMMANDS.items():
            (SOURCE / "configs" / "services" / f"{name}.yaml").write_text(file_of(command))
    else:
        unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
