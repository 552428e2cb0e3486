"""The demo's tree: what a company's bucket may hold, the same at every run."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 7
PLAIN_DAYS = 2  # the newest ones: logrotate compresses the day after
LINES_PER_DAY = 12_000
ORDERS = 60_000
PAGES = 240
IMAGE_BYTES = 64 * 1024 * 1024

PATHS = ["/", "/cart", "/search?q=lamp", "/api/v1/orders", "/login", "/static/app.js", "/help"]
STATUSES = [200] * 90 + [304] * 5 + [404] * 3 + [500, 503]
AGENTS = ["Mozilla/5.0 (X11; Linux x86_64)", "curl/8.5.0", "Mozilla/5.0 (iPhone)"]
CITIES = ["Oslo", "Zürich", "São Paulo", "東京", "Nairobi", "Lyon"]


def access_log(rng: random.Random, day: datetime) -> bytes:
    """One day of a web server's log, in the combined format."""
    lines = []
    for number in range(LINES_PER_DAY):
        at = day + timedelta(seconds=number * 86_400 / LINES_PER_DAY)
        lines.append(
            f"10.0.{rng.randrange(256)}.{rng.randrange(256)} - - [{at:%d/%b/%Y:%H:%M:%S %z}]"
            f' "GET {rng.choice(PATHS)} HTTP/1.1" {rng.choice(STATUSES)}'
            f' {rng.randrange(200, 90_000)} "-" "{rng.choice(AGENTS)}"\n'
        )
    return "".join(lines).encode()


def orders(rng: random.Random) -> bytes:
    """A table of some MB."""
    lines = ["order_id,placed_at,customer,city,amount_cents,status\n"]
    for number in range(ORDERS):
        at = FIRST_DAY + timedelta(seconds=number * 10)
        lines.append(
            f"{100_000 + number},{at:%Y-%m-%dT%H:%M:%SZ},customer-{rng.randrange(5_000):04},"
            f"{rng.choice(CITIES)},{rng.randrange(500, 250_000)},"
            f"{rng.choice(['paid', 'shipped', 'returned'])}\n"
        )
    return "".join(lines).encode()


def page(rng: random.Random, number: int) -> bytes:
    """A small file of a web site."""
    words = " ".join(rng.choice(["lamp", "table", "chair", "shelf"]) for _ in range(150))
    return f"<html><title>Product {number}</title><p>{words}</p></html>\n".encode()


def files() -> Iterator[tuple[str, bytes]]:
    """The path and the bytes of every file."""
    rng = random.Random(20260302)
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        name, log = f"logs/access-{day:%Y-%m-%d}.log", access_log(rng, day)
        if number < DAYS - PLAIN_DAYS:
            yield f"{name}.gz", gzip.compress(log, compresslevel=6, mtime=0)
        else:
            yield name, log
    yield "data/orders.csv", orders(rng)
    yield "backup/disk.img", rng.randbytes(IMAGE_BYTES)
    for number in range(PAGES):
        yield f"site/products/{number // 40:02}/product-{number:03}.html", page(rng, number)
    yield "names/annual report (final).txt", b"a name with spaces\n"
    yield "names/Zürich 東京 🗺.txt", b"a name in Unicode\n"
    yield "names/two\nlines.txt", b"a name with a newline\n"
    yield "names/-rf", b"a name that looks like an option\n"
    yield "names/empty", b""


def write(root: Path) -> list[str]:
    """Write the tree below `root`; returns the paths, relative to it."""
    paths = []
    for path, content in files():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        paths.append(path)
    return paths
