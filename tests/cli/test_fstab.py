"""The -o list of mount(8): what is ours, what is the kernel's, what is for others."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import UsageError
from s3mount.fstab import MountOptions, split


def settings_of(text: str) -> dict[str, object]:
    return {setting.option.name: setting.value for setting in MountOptions().read(text)}


def kernel_of(*texts: str) -> tuple[str, ...]:
    options = MountOptions()
    for text in texts:
        options.read(text)
    return options.kernel


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        (",,", []),
        ("ro", [("ro", None)]),
        ("ro,uid=5", [("ro", None), ("uid", "5")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=", [("a", "")]),
        (r"a=b\,c,d", [("a", "b,c"), ("d", None)]),
        (r"a=b\\,d", [("a", "b\\"), ("d", None)]),
        (r"a=b\c", [("a", r"b\c")]),
        ("a=b\\", [("a", "b\\")]),
        ('context="u:r:t:c1,c2",ro', [("context", "u:r:t:c1,c2"), ("ro", None)]),
    ],
)
def test_split(text: str, pairs: list[tuple[str, str | None]]) -> None:
    assert split(text) == pairs


NAMES = st.text(st.characters(exclude_characters='\\,="'), min_size=1)
VALUES = st.none() | st.text(st.characters(exclude_characters='"'))


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_split_round_trip(pairs: list[tuple[str, str | None]]) -> None:
    words = []
    for name, value in pairs:
        escaped = (value or "").replace("\\", "\\\\").replace(",", "\\,")
        words.append(name if value is None else f"{name}={escaped}")
    assert split(",".join(words)) == pairs


@given(st.text())
def test_any_list_is_understood_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        MountOptions().read(text)


def test_what_is_for_mount_and_boot_is_passed_over() -> None:
    text = (
        "defaults,_netdev,nofail,noauto,auto,user,users,nouser,owner,group,user=joe,comment=x,"
        "x-systemd.automount,x-gvfs-hide,X-mount.mkdir,relatime,dev,suid,default_permissions,"
        "subtype=s3,nonempty,lazytime,nodiratime,exec,atime,async"
    )
    options = MountOptions()
    assert options.read(text) == []
    assert options.kernel == ()


def test_ours() -> None:
    assert settings_of("allow_other,uid=1000,cache_dir=/var/a\\,b,metadata-ttl=5m,fips=no") == {
        "allow-other": True,
        "uid": 1000,
        "cache-dir": Path("/var/a,b"),
        "metadata-ttl": 300.0,
        "fips": False,
    }


def test_negated() -> None:
    assert settings_of("no_fips,sign_request,no_dualstack=no") == {
        "fips": False,
        "no-sign-request": False,
        "dualstack": True,
    }


def test_last_of_ro_and_rw_comes_last() -> None:
    assert settings_of("rw") == {"read-only": False}
    assert settings_of("rw,ro") == {"read-only": True}
    assert settings_of("ro,rw") == {"read-only": False}


def test_kernel_flags() -> None:
    assert kernel_of("nodev,nosuid,noexec,noatime,sync,dirsync,auto_unmount") == (
        "nodev",
        "nosuid",
        "noexec",
        "noatime",
        "sync",
        "dirsync",
        "auto_unmount",
    )


def test_kernel_flags_are_taken_back_by_the_last_word() -> None:
    assert kernel_of("noexec,noatime,sync", "exec,atime,async") == ()
    assert kernel_of("exec", "noexec") == ("noexec",)


def test_devices_and_set_uid_programs_stay_off() -> None:
    assert kernel_of("nodev,nosuid,dev,suid") == ("nodev", "nosuid")


def test_commas_are_escaped_again_for_libfuse() -> None:
    assert kernel_of(r'context="a:b:c1,c2"') == (r"context=a:b:c1\,c2",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cach_dir=/x", "-o cach_dir: there is no such option; did you mean cache_dir?"),
        ("noatim", "-o noatim: there is no such option; did you mean noatime?"),
        ("use_cache=/x", "did you mean cache_dir?"),
        ("xyzzy", "-o xyzzy: there is no such option; see s3mount --help"),
        ("cache_size=10X", "-o cache_size '10X' is not a size; give a size"),
        ("cache_size", "-o cache_size needs a value; give a size .*as cache_size=..."),
        ("allow_other=maybe", "-o allow_other 'maybe' is neither yes nor no; give true or false"),
        ("remount,ro", "cannot be remounted; umount it and mount it again"),
        ("=5", "-o : there is no such option"),
        ("bucket=x", "-o bucket: there is no such option"),
    ],
)
def test_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        MountOptions().read(text)
    assert re.search(message.replace("?", r"\?"), str(caught.value))


def test_sloppy_passes_over_the_unknown_but_not_the_wrong() -> None:
    assert MountOptions(sloppy=True).read("xyzzy,plugh=1") == []
    with pytest.raises(UsageError, match="cache_size"):
        MountOptions(sloppy=True).read("cache_size=10X")
