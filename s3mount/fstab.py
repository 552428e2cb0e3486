"""Pure: the `-o` list of mount(8) and fstab(5) -> settings and options for the kernel.

What reaches us through mount(8) was measured (util-linux 2.38, libfuse 3.14):

- /sbin/mount.fuse3 calls `s3mount SOURCE DIR -o rw,noatime,...,dev,suid`: it adds `dev,suid` for
  root, and mount(8) adds `rw` when nobody said `ro`.
- mount(8) calls a helper of its own, /sbin/mount.fuse.s3mount, with `SOURCE DIR -s -f -n -v
  -o ...`, and leaves `_netdev`, `nofail` and `user` in the list.
- `\\,` in a value arrives as it was written.

Must not know: argparse, files, the environment.
"""

from __future__ import annotations

from s3mount.errors import UsageError
from s3mount.options import MOUNT_OPTION, READ_ONLY, Setting, find, suggestion

# The kernel flags that libfuse 3.14 takes (it ends with "unknown option" at all others), by the
# option that each takes back.
_KERNEL_FLAGS = {
    "nodev": "",  # devices and set-uid programs cannot be in a bucket: `dev` and `suid`, which
    "nosuid": "",  # mount.fuse3 always adds, do not take these back
    "noexec": "exec",
    "noatime": "atime",
    "sync": "async",
    "dirsync": "",
}
_TAKEN_BACK_BY = {back: flag for flag, back in _KERNEL_FLAGS.items() if back}
# Taken by libfuse or the kernel with a value, or without: passed on as they are.
_PASSED_ON = frozenset({"auto_unmount", "context", "fscontext", "defcontext", "rootcontext"})
# For mount(8), systemd or boot scripts.
_FOR_OTHERS = frozenset(
    [
        "_netdev",
        "auto",
        "comment",
        "defaults",
        "fail",
        "group",
        "noauto",
        "nofail",
        "nogroup",
        "noowner",
        "nouser",
        "nousers",
        "owner",
        "user",
        "users",
    ]
)
# Without a meaning for a bucket, or true anyway.
_MEANINGLESS = frozenset(
    [
        "dev",
        "suid",
        "atime",
        "async",
        "exec",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "iversion",
        "noiversion",
        "mand",
        "nomand",
        "silent",
        "loud",
        "symfollow",
        "nosymfollow",
        "default_permissions",
        "subtype",
        "nonempty",
    ]
)
_IGNORED = _FOR_OTHERS | _MEANINGLESS
_KNOWN = tuple(sorted(_IGNORED | _PASSED_ON | set(_KERNEL_FLAGS) | {"ro", "rw"}))


def split(text: str) -> list[tuple[str, str | None]]:
    """`text` as (name, value) pairs; the value is None where no "=" is.

    As mount(8): a backslash takes the meaning from the comma (or backslash) behind it, and so
    do double quotes around a value.
    """
    words, word, quoted, characters = [], "", False, iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            word += following if following in (",", "\\") else character + following
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            words.append(word)
            word = ""
        else:
            word += character
    pairs = []
    for each in [*words, word]:
        name, equals, value = each.partition("=")
        if name or equals:
            pairs.append((name, value if equals else None))
    return pairs


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,")


class MountOptions:
    """Takes in one `-o` list after the other; the last word on a thing counts."""

    def __init__(self, *, sloppy: bool = False) -> None:
        """With `sloppy` (mount -s) the unknown is passed over."""
        self._sloppy = sloppy
        self._kernel: dict[str, str] = {}

    @property
    def kernel(self) -> tuple[str, ...]:
        """The options for the kernel so far, each in libfuse's spelling, commas escaped."""
        return tuple(self._kernel.values())

    def read(self, text: str) -> list[Setting]:
        """Take in one list; the settings of our own in it.

        Raises `UsageError` for an unknown option or a wrong value.
        """
        settings = []
        for name, value in split(text):
            if name in ("ro", "rw"):
                settings.append(Setting(READ_ONLY, name == "ro", f"-o {name}"))
            elif name == "remount":
                raise UsageError(
                    "a mounted bucket cannot be remounted", "umount it and mount it again"
                )
            elif name in _TAKEN_BACK_BY:
                self._kernel.pop(_TAKEN_BACK_BY[name], None)
            elif name in _KERNEL_FLAGS or name in _PASSED_ON:
                self._kernel[name] = name if value is None else f"{name}={_escaped(value)}"
            elif name in _IGNORED or name.startswith(("x-", "X-")):
                continue
            elif (setting := _own(name, value, self._sloppy)) is not None:
                settings.append(setting)
        return settings


def _own(name: str, value: str | None, sloppy: bool) -> Setting | None:
    """One of our own options; None when it is unknown and that is all right."""
    where = f"-o {name}"
    found = find(name, MOUNT_OPTION)
    if found is None:
        if sloppy:
            return None
        meant = suggestion(name, MOUNT_OPTION, _KNOWN)
        spelled = meant if meant is None or meant in _KNOWN else meant.replace("-", "_")
        raise UsageError(
            f"{where}: there is no such option",
            f"did you mean {spelled}?" if spelled else "see s3mount --help for all of them",
        )
    option, negated = found
    if option.is_flag:
        on = option.parse(value, where) if value is not None else True
        return Setting(option, on != negated, where)
    if value is None:
        raise UsageError(f"{where} needs a value", f"give {option.permitted}, as {name}=...")
    return Setting(option, option.parse(value, where), where)
