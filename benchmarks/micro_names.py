"""What a known name takes of memory, without a mount.

    python -m benchmarks.micro_names [--names 1000000] [--held]

Pages of a listing are told to one directory, as a mount learns them, and the memory that is
resident is compared with what it was before. `--held`: the kernel holds an inode of each, too.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from s3mount.model import ListPage, ObjectInfo
from s3mount.namespace.directories import Directories
from s3mount.namespace.inodes import Inodes, Node
from s3mount.namespace.known import START, after
from s3mount.namespace.listing import delimited

PREFIX = "dir/"
PAGE = 1000


def resident() -> int:
    """Bytes of memory of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line[:6] == "VmRSS:").split()[1])


def learn(directories: Directories, count: int) -> None:
    """Tell the directory of so many files, page by page."""
    lo = START
    for first in range(0, count, PAGE):
        objects = [
            ObjectInfo(f"{PREFIX}file{n:07d}.dat", n, f'"{n:032x}"', 10**18 + n)
            for n in range(first, min(first + PAGE, count))
        ]
        page = ListPage(objects, next_token="more" if first + PAGE < count else None)
        directories.apply(directories.have(PREFIX), delimited(page, PREFIX, lo), 1.0)
        lo = after(page.last[len(PREFIX) :])


def hold(directories: Directories, inodes: Inodes) -> None:
    """Give the kernel every file, as readdir does."""
    directory = directories[PREFIX]
    parent = Node(inodes.new_ino(), inodes.root, PREFIX[:-1], directory=directory)
    for row, name in enumerate(directory.entries.names):
        node = Node(inodes.new_ino(), parent, name)
        directory.entries.set_ino(row, node.ino)
        inodes.remember(node)


def main() -> None:
    """Print the bytes of each name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--held", action="store_true", help="the kernel holds each as well")
    options = parser.parse_args()
    directories = Directories(1.0)
    inodes = Inodes(directories.have(""))
    before = resident()
    learn(directories, options.names)
    if options.held:
        hold(directories, inodes)
    assert len(directories[PREFIX]) == options.names
    print(f"{(resident() - before) / options.names:.0f} bytes a name, {options.names:,} known")


if __name__ == "__main__":
    main()
