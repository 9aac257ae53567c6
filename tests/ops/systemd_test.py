#!/usr/bin/env python3
"""ops/systemd as systemd reads it: sound, confined, and in step with the programs.
Usage: systemd_test.py SOURCE_DIR [unittest arguments]"""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from needs import needs_tools

SOURCE = pathlib.Path(sys.argv[1]).resolve()
UNITS = SOURCE / "ops" / "systemd"
SERVICES = ("gateway", "vision-encoder", "router", "expert-shard", "decoder")
MOST_EXPOSED = 3.0


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": ""}, timeout=60)
    return done.returncode, done.stdout + done.stderr


class SystemdTest(unittest.TestCase):
    def setUp(self):
        needs_tools("systemd-analyze")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="moesaic-units-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.units = self.folder / "units"
        shutil.copytree(UNITS, self.units)

    def test_there_is_a_unit_for_every_service(self):
        self.assertEqual(sorted(path.name for path in UNITS.glob("*.service")), sorted(f"moesaic-{service}@.service" for service in SERVICES))

    def test_units_verify(self):
        # The programs need not be installed for that: programs that exist stand in their place.
        for service in SERVICES:
            with self.subTest(service):
                program = self.folder / f"moesaic-{service}"
                program.touch(0o755)
                path = self.units / f"moesaic-{service}@.service"
                path.write_text(path.read_text().replace(f"/usr/bin/moesaic-{service}", str(program)))
                status, output = run("systemd-analyze", "verify", "--man=no", self.units / f"moesaic-{service}@one.service")
                self.assertEqual((status, output), (0, ""))

    def test_verify_would_find_a_fault(self):
        path = self.units / "moesaic-.service.d" / "confinement.conf"
        path.write_text(path.read_text() + "ProtectSytem=strict\n")
        _, output = run("systemd-analyze", "verify", "--man=no", self.units / "moesaic-gateway@one.service")
        self.assertIn("ProtectSytem", output)

    def exposure(self, service):
        status, output = run("systemd-analyze", "security", "--offline=true", f"--threshold={int(MOST_EXPOSED * 10)}",
                             self.units / f"moesaic-{service}@.service")
        return status, float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", output).group(1))

    def test_exposure_is_low(self):
        for service in SERVICES:
            with self.subTest(service):
                status, level = self.exposure(service)
                self.assertEqual(status, 0)
                self.assertLess(level, MOST_EXPOSED)

    def test_exposure_comes_from_what_all_units_share(self):
        (self.units / "moesaic-.service.d" / "confinement.conf").unlink()
        self.assertGreater(self.exposure("decoder")[1], 8)

    def test_units_start_their_program_with_its_own_key(self):
        for service in SERVICES:
            with self.subTest(service):
                unit = configparser.ConfigParser(interpolation=None, strict=False)
                unit.optionxform = str
                unit.read(UNITS / f"moesaic-{service}@.service")
                self.assertEqual(unit["Service"]["ExecStart"], f"/usr/bin/moesaic-{service} --config /etc/moesaic/{service}.yaml")
                self.assertEqual(unit["Service"]["LoadCredential"], f"{service}-%i.secret:/etc/moesaic/keys/{service}-%i.secret")

    def test_programs_have_time_to_drain(self):
        life = (UNITS / "moesaic-.service.d" / "life.conf").read_text()
        stop = int(re.search(r"^TimeoutStopSec=(\d+)$", life, re.MULTILINE).group(1))
        drains = [int(seconds) for path in (SOURCE / "configs" / "services").glob("*.yaml")
                  for seconds in re.findall(r"^\s+drain_seconds: (\d+)", path.read_text(), re.MULTILINE)]
        self.assertTrue(drains)
        self.assertGreaterEqual(stop, max(drains) + 10)
        self.assertIn("Type=notify", life)

    def test_folders_are_described(self):
        root = self.folder / "root"
        root.mkdir()
        done = subprocess.run(["systemd-tmpfiles", "--create", f"--root={root}", UNITS / "moesaic.tmpfiles"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual((root / "etc/moesaic/keys").stat().st_mode & 0o777, 0o700)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
