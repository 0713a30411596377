"""Slot folders: made for a child, wiped after it, and after the process that made them."""

import subprocess
import sys
from pathlib import Path

from bench import ROOT, alive, until

from worker.slots import House, wipe_leftovers

OWNER = """
import os, subprocess, sys, time
from pathlib import Path
from worker.slots import House
house = House(Path(sys.argv[1]))
slot = house.slot()
left = subprocess.Popen(["sleep", "600"], env={"HOME": str(slot.folder)}, start_new_session=True)
print(house.folder, left.pid, flush=True)
time.sleep(600)
"""


def test_a_house_in_use_is_left_alone_and_a_dead_owners_is_wiped(tmp_path: Path):
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert owner.stdout is not None
    folder, left = owner.stdout.readline().decode().split()
    own = House(tmp_path)
    assert wipe_leftovers(tmp_path) == 0
    assert Path(folder).is_dir()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert alive(int(left))
    assert wipe_leftovers(tmp_path) == 1
    assert not Path(folder).exists()
    until(lambda: not alive(int(left)))
    assert own.folder.is_dir()
    own.close()


def test_folders_without_permissions_are_wiped_too(tmp_path: Path):
    house = House(tmp_path)
    slot = house.slot()
    locked = slot.folder / "tmp" / "locked"
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0)
    slot.wipe()
    assert not slot.folder.exists()
    house.close()


def test_links_out_of_a_slot_are_not_followed(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    house = House(tmp_path / "slots")
    slot = house.slot()
    (slot.folder / "tmp" / "link").symlink_to(precious)
    slot.wipe()
    assert (precious / "file").exists()
    house.close()
