"""What a row of the table is: work to do in a mount, and how its figure is to be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from benchmarks.modelled_s3 import ModelledS3


class Profile(Enum):
    """The network between the mount and the server."""

    MODELLED = "modelled"
    """25 ms to the first byte, 90 MB/s a connection."""
    RAW = "raw"
    """Neither."""
    TLS = "tls"
    """As MODELLED, encrypted."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the work of a row finds when it begins."""

    root: Path
    """The mountpoint; for the row's limits of the local kind, the local copy."""
    local: Path
    """A local copy of what is in the bucket."""
    scratch: Path
    """An empty directory on local disk."""
    server: ModelledS3
    bucket: str
    endpoint_url: str
    ca_path: Path | None = None
    usable_after: float = 0.0
    """Seconds from starting the program until the mount answered."""
    resident: Callable[[], int] = lambda: 0
    """Bytes of memory that the program has now."""
    limit: float = 60.0
    """Seconds that the work may take."""
    compare: int | None = None
    """Bytes of each file to verify; None: all."""
    fault_seconds: float = 8.0
    """How long readers read while faults strike."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the work came to."""

    value: float
    """In the row's unit."""
    details: dict[str, float] = field(default_factory=dict)
    wrong: str = ""
    """What was read and is not what is in the bucket; empty: all bytes are right."""
    items: int = 0
    """Files or reads: requests and bytes are shown for each. 0: neither says anything."""


Work = Callable[[Stage], Outcome]


@dataclass(frozen=True, slots=True)
class Limit:
    """What the figure is held against: the work by a bare client, or on a local disk."""

    name: str
    work: Work
    is_local: bool = False
    """Given the local copy as the root, with its pages dropped when the row drops them."""
    mount_options: tuple[str, ...] | None = None
    """Not None: done in a mount of s3mount with these options, to tell what they change."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    group: str
    title: str
    unit: str
    dataset: str
    work: Work
    higher_is_better: bool = False
    profile: Profile = Profile.MODELLED
    disk_cache: bool = False
    """Needs a disk cache: programs without one are left out."""
    prepare: Callable[[Stage], None] | None = None
    """Done in the same mount before, untimed and uncounted."""
    drop_page_cache: bool = False
    """Drop the page cache between `prepare` and the work."""
    verify: Callable[[Stage], str] | None = None
    """Done in the same mount afterwards, untimed and uncounted: what is wrong, or empty."""
    timeout: float = 60.0
    """Seconds, for the work; longer is reported as that."""
    patience: float = 1.0
    """How many times the limit of a run another program may take."""
    bounds_itself: bool = False
    """The work ends by itself, also where the mount hangs."""
    runs: int | None = None
    """At most so many: what it tells does not change from run to run."""
    mount_options: tuple[str, ...] = ()
    """For s3mount, beside those it is always given."""
    with_peers: bool = True
    """False: the others take part only when the row is asked for by its name."""
    most_fetched: int | None = None
    """Bytes: a program that fetched more did other work, and is not the best peer."""
    counts_mounting: bool = False
    """What the program asks and computes while it mounts counts too."""
    limits: tuple[Limit, ...] = ()
    reach: str = ""
    """What s3mount is to reach."""
