"""What a test of this folder needs from the machine."""

import os
import shutil
import unittest


def needs(condition, what):
    """Skips the calling test on a machine without `what`; in CI, where it must be there, the test fails instead."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        raise AssertionError(f"{what} is needed, and CI has it: see ops/packages.txt")
    raise unittest.SkipTest(f"{what} is needed")


def needs_tools(*names):
    missing = [name for name in names if shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None]
    needs(not missing, "the program " + ", ".join(missing))


def needs_root():
    needs(os.geteuid() == 0, "root")
