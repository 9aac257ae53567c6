#!/usr/bin/env python3
"""configs/services/*.yaml are what the programs print with --print-config: every key with its default and meaning.
Usage: service_files_test.py SOURCE_DIR PROGRAM_DIR [unittest arguments]"""

import pathlib
import subprocess
import sys
import unittest

from needs import needs

SOURCE, PROGRAMS = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
COMMANDS = {"all_in_one": ["moesaic", "serve"], **{service.replace("-", "_"): [f"moesaic-{service}"]
            for service in ("gateway", "vision-encoder", "router", "expert-shard", "decoder")}}


def printed(command):
    path = PROGRAMS / command[0]
    needs(path.is_file(), str(path))
    return subprocess.run([path, *command[1:], "--print-config"], capture_output=True, text=True, check=True).stdout


class ServiceFilesTest(unittest.TestCase):
    def test_files_are_what_the_programs_print(self):
        for name, command in COMMANDS.items():
            with self.subTest(name):
                text = printed(command)
                self.assertGreater(text.count("  # "), 10)
                self.assertEqual((SOURCE / "configs" / "services" / f"{name}.yaml").read_text(), text)

    def test_programs_take_their_files(self):
        # A model that is not there ends the program after its settings were read; without one a bad key would be the reason.
        for name, command in COMMANDS.items():
            with self.subTest(name):
                done = subprocess.run([PROGRAMS / command[0], *command[1:], "--config", SOURCE / "configs" / "services" / f"{name}.yaml",
                                       "--model-dir", "/nonexistent"], capture_output=True, text=True, timeout=60)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("/nonexistent", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
