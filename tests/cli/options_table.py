"""docs/options.md, made from the table of options.

python -m tests.cli.options_table > docs/options.md
"""

from __future__ import annotations

import textwrap

from s3mount.config import CRAWLERS
from s3mount.options import COMMAND_LINE, FILE, GROUPS, MOUNT_OPTION, OPTIONS, Option

_TOP = """\
# Options

Made from the program's own table; a test compares them.

Every option is a long flag, a name in `-o` (`s3mount -o NAME=VALUE,...`, fstab) and a name in the
TOML file that `--config` reads. In the last two, `_` and `-` are the same. The command line and
`-o` come before the file, and the last one wins. A switch is turned off by `--no-NAME` (and
`--no-sign-request` by `--sign-request`), in `-o` and the file also by `NAME=no` and `NAME = false`.

Sizes are in units of 1024: `512K`, `64M`, `10G`. Times are `250ms`, `30s`, `5m`, `1h`, where it
says so `forever`; a bare number is seconds. Modes are octal, and in the file in quotes: `"0640"`.

A config file:

```toml
bucket = "logs/2026"
mountpoint = "/mnt/logs"
cache_size = "20G"
allow_other = true
file_mode = "0640"
```
"""

_BOTTOM = """
## Options of mount(8)

| in `-o` or fstab | what becomes of it |
|---|---|
| `ro` | `--read-only` |
| `rw` | accepted; for now the mount is read-only all the same, and says so |
| `noexec`, `noatime`, `sync`, `dirsync`, `nodev`, `nosuid` | kernel flags, passed on; \
`exec`, `atime`, `async` take them back |
| `dev`, `suid` | ignored: a bucket holds neither, and the mount is always `nodev,nosuid` |
| `auto_unmount`, `context=`, `fscontext=`, `defcontext=`, `rootcontext=` | passed on to libfuse |
| `fsname=NAME` | what `df` and `/proc/mounts` show as the source |
| `defaults`, `_netdev`, `nofail`, `auto`, `noauto`, `user`, `users`, `owner`, `group`, \
`comment=`, `x-*`, `relatime`... | for mount(8) and systemd: ignored |
| `remount` | refused: unmount, and mount again |
| anything else | refused, with the name that was probably meant (`mount -s` ignores it) |

A comma in a value is written `\\,`, as mount(8) has it.

## Programs kept out

By default `--keep-out` names those that walk every filesystem for an index of their own:
@CRAWLERS@.

A name is that of a process in `/proc/PID/comm`, of which 15 bytes count, or of the file that a
script is in. Opening a directory fails with "Permission denied", and the log says so once.

## Exit codes

| code | meaning |
|---|---|
| 0 | the mount is usable |
| 1 | it is not; stderr says why, and what to do |
| 2 | a wrong option, value or config file |
| 128 + N | signal N came before the mount was usable; the daemon was ended, too |

Installed as mount(8)'s helper (a link `/sbin/mount.fuse.s3mount`), the codes are mount(8)'s: 1 for
a wrong call, 32 for a mount that failed.
"""


def _row(option: Option) -> str:
    name = option.name.replace("-", "_") if COMMAND_LINE not in option.places else option.name
    flag = f"--{name}" if COMMAND_LINE in option.places else name
    if not option.is_flag and COMMAND_LINE in option.places:
        flag += " LEVEL" if option.choices else f" {option.kind.metavar}"
    if option.short:
        flag = f"{option.short}, {flag}"
    where = {frozenset({FILE}): "config file only: ", frozenset({MOUNT_OPTION}): "`-o` only: "}
    meaning = where.get(option.places, "") + option.help
    allowed = "" if option.is_flag else option.permitted
    return f"| `{flag}` | {meaning} | {option.default} | {allowed} |"


def markdown() -> str:
    """The whole page."""
    lines = [_TOP]
    for group in ("what and where", *GROUPS):
        lines += [f"## {group[0].upper()}{group[1:]}", ""]
        lines += ["| option | meaning | default | values |", "|---|---|---|---|"]
        lines += [_row(option) for option in OPTIONS if option.group == group]
        lines.append("")
    crawlers = textwrap.fill(
        ", ".join(f"`{name}`" for name in CRAWLERS), 100, break_on_hyphens=False
    )
    return "\n".join(lines).rstrip() + "\n" + _BOTTOM.replace("@CRAWLERS@", crawlers)


if __name__ == "__main__":
    print(markdown(), end="")
