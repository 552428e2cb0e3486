"""Command line, -o, config file and environment together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from s3mount.cli import configure, default_cache_dir, main
from s3mount.config import Config
from s3mount.errors import UsageError

BASE = ["logs", "/mnt"]


def config_of(*argv: str) -> Config:
    return configure([*BASE, *argv]).config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logs.toml"
    path.write_text(
        """
        bucket = "filed/prefix"
        mountpoint = "/mnt/filed"
        cache_size = "1G"
        requester_pays = true
        """
    )
    return path


def test_nothing_said_is_the_defaults() -> None:
    expected = Config("logs", "logs", "", Path("/mnt"), cache_dir=default_cache_dir())
    assert configure(BASE) == (expected, False, ())


def test_source_is_what_the_user_wrote() -> None:
    config = configure(["s3://logs/2026", "/mnt"]).config
    assert (config.source, config.bucket, config.prefix) == ("s3://logs/2026", "logs", "2026/")
    config = config_of("-o", "fsname=shown")
    assert (config.source, config.bucket) == ("shown", "logs")


@pytest.mark.parametrize(
    "argv",
    [
        ["logs", "/mnt", "--uid", "5", "--fips"],
        ["--uid", "5", "logs", "--fips", "/mnt"],
        ["--fips", "--uid=5", "logs", "/mnt"],
        ["--fips", "--uid=5", "--", "logs", "/mnt"],
        ["logs", "-o", "uid=5", "/mnt", "-ofips"],
    ],
)
def test_options_and_arguments_in_any_order(argv: list[str]) -> None:
    config = configure(argv).config
    assert (config.bucket, config.mountpoint) == ("logs", Path("/mnt"))
    assert (config.uid, config.fips) == (5, True)


def test_short_flags_together() -> None:
    assert config_of("-fo", "allow_other").foreground is True


def test_the_last_one_wins_across_forms() -> None:
    assert config_of("--uid", "5", "-o", "uid=6").uid == 6
    assert config_of("-o", "uid=6", "--uid", "5").uid == 5
    assert config_of("-o", "uid=6,uid=7").uid == 7
    assert config_of("--fips", "-o", "no_fips").fips is False
    assert config_of("-o", "fips", "--no-fips").fips is False
    assert config_of("--no-sign-request", "--sign-request").no_sign_request is False


def test_every_long_flag_of_the_mount_list_is_kept_for_the_kernel() -> None:
    assert config_of("-o", "noexec,noatime", "-o", "exec,nodev").mount_options == (
        "noatime",
        "nodev",
    )


def test_config_file_holds_everything(file: Path) -> None:
    config = configure(["-f", "--config", str(file)]).config
    assert (config.bucket, config.prefix, config.mountpoint) == (
        "filed",
        "prefix/",
        Path("/mnt/filed"),
    )
    assert config.cache_size == 2**30
    assert config.requester_pays is True
    assert config.foreground is True


def test_command_line_beats_the_config_file_wherever_it_stands(file: Path) -> None:
    config = configure(
        ["--cache-size=2G", "--config", str(file), "other", "/mnt/o", "--no-requester-pays"]
    ).config
    assert (config.source, config.mountpoint) == ("other", Path("/mnt/o"))
    assert config.cache_size == 2**31
    assert config.requester_pays is False
    assert configure(["-o", f"config={file},cache_size=3G"]).config.cache_size == 3 * 2**30


def test_the_last_config_file_counts(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("retries = 1")
    config = config_of("--config", str(file), "--config", str(other))
    assert (config.retries, config.requester_pays) == (1, False)


def test_relative_and_home_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/joe")
    argv = ["logs", "here", "--cache-dir", "~/cache", "-o", "log_file=../log"]
    config = configure(argv).config
    assert config.mountpoint == tmp_path / "here"
    assert config.cache_dir == Path("/home/joe/cache")
    assert config.log_file == tmp_path.parent / "log"


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path("/xdg/s3mount")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/joe")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_cache_dir() == Path("/home/joe/.cache/s3mount")
    monkeypatch.setattr("os.path.expanduser", str)  # no home
    assert default_cache_dir() is None
    call = configure(BASE)
    assert call.config.cache_dir is None
    assert ["no home directory" in notice for notice in call.notices] == [True]
    assert not configure([*BASE, "--cache-dir=none"]).notices
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_cache_dir() == Path("/var/cache/s3mount")
    assert config_of("--cache-dir", "none").cache_dir is None


def test_read_timeout_follows_a_shorter_deadline() -> None:
    assert config_of("--deadline", "3s").read_timeout == 3.0
    assert config_of("--deadline", "3s", "--read-timeout", "1s").read_timeout == 1.0
    assert config_of("--read-timeout", "2m").read_timeout == 60.0


def test_rw_is_accepted_and_said_to_be_read_only(tmp_path: Path) -> None:
    call = configure([*BASE, "-o", "rw"])
    assert call.config.read_only is True
    assert ["read-only" in notice for notice in call.notices] == [True]
    assert configure([*BASE, "--no-read-only"]).notices
    assert not configure([*BASE, "-o", "rw,ro"]).notices
    assert not configure([*BASE, "-o", "rw", "--read-only"]).notices
    # mount(8) says rw by itself, when fstab says neither.
    file = tmp_path / "ro.toml"
    file.write_text("read_only = true")
    assert not configure([*BASE, "-o", f"rw,config={file}"]).notices


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no bucket was named; usage: s3mount"),
        (["logs"], "no mountpoint was named; usage: s3mount"),
        (["logs", ""], "MOUNTPOINT '' is empty; give a path"),
        (["", "/mnt"], "BUCKET '' is empty"),
        (["logs", "/mnt", "more"], "'more' is one argument too many; usage: s3mount"),
        ([*BASE, "--cach-dir", "/x"], r"no option --cach-dir; did you mean --cache-dir\?"),
        ([*BASE, "--cach-dir=/x"], r"no option --cach-dir; did you mean --cache-dir\?"),
        ([*BASE, "--cache", "/x"], r"no option --cache; did you mean --cache-dir\?"),
        ([*BASE, "--metadata", "5"], r"no option --metadata; did you mean --metadata-ttl\?"),
        ([*BASE, "-d"], r"there is no option -d; did you mean --debug\?"),
        ([*BASE, "-x"], "there is no option -x; see s3mount --help"),
        ([*BASE, "--uid"], "--uid needs a value; give a number or the name of a user"),
        ([*BASE, "--uid", "--fips"], "--uid needs a value"),
        ([*BASE, "-o"], "-o needs a value; give options, as in -o ro,allow_other"),
        ([*BASE, "--fips=1"], "--fips takes no value"),
        ([*BASE, "--foreground=1"], "--foreground takes no value"),
        ([*BASE, "--version=1"], "--version: ignored explicit argument"),
        ([*BASE, "--uid", "nobody-at-all"], "--uid 'nobody-at-all' is not a user known"),
        ([*BASE, "--config", "/nope"], "--config '/nope' cannot be read: No such file"),
        ([*BASE, "--config", "/"], "--config '/' cannot be read: Is a directory"),
        ([*BASE, "--allow-other", "--allow-root"], "--allow-other does not go with --allow-root"),
        (
            [*BASE, "--fips", "--endpoint-url=http://x"],
            "--fips does not go with --endpoint-url; leave out --fips",
        ),
        ([*BASE, "--dualstack", "--endpoint-url=http://x"], "--dualstack does not go with"),
        ([*BASE, "--accelerate", "--endpoint-url=http://x"], "--accelerate does not go with"),
        ([*BASE, "--accelerate", "--fips"], "--accelerate does not go with --fips"),
        ([*BASE, "--accelerate", "--path-style"], "--accelerate does not go with --path-style"),
        ([*BASE, "--no-sign-request", "--requester-pays"], "does not go with --requester-pays"),
        (
            [*BASE, "--memory-limit=32M", "--block-size=16M"],
            "--memory-limit holds fewer than 4 blocks of --block-size; raise the one",
        ),
        ([*BASE, "--cache-size=16M", "--block-size=8M"], "--cache-size holds fewer than 4 blocks"),
    ],
)
def test_wrong(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure(argv)
    assert re.search(message, str(caught.value))


def test_cache_size_does_not_matter_without_a_cache() -> None:
    config = config_of("--cache-size=16M", "--block-size=8M", "--cache-dir=none")
    assert config.cache_dir is None


def test_ca_bundle_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--ca-bundle '/nope' is not a file; give a file of cert"):
        config_of("--ca-bundle", "/nope")
    file = tmp_path / "ca.pem"
    file.touch()
    assert config_of("--ca-bundle", str(file)).ca_bundle == file


def test_config_file_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "latin1.toml"
    file.write_bytes(b'bucket = "\xe9"')
    with pytest.raises(UsageError, match=r"latin1.toml' is not UTF-8"):
        configure(["--config", str(file)])


def test_wrong_usage_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lo\ngs", "/mnt"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(r"s3mount: 'lo\ngs' is not a bucket name; ")
    assert captured.err.count("\n") == 1


def test_what_cannot_be_printed_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "/mnt", "--\x1b[31m\udcff"]) == 2
    assert capsys.readouterr().err.startswith(r"s3mount: there is no option --\x1b[31m\udcff;")


class TestAsMountHelper:
    """mount(8): SOURCE DIR [-sfnv] [-N namespace] [-o options] [-t type.subtype]"""

    def test_its_own_short_options(self) -> None:
        argv = ["logs", "/mnt", "-s", "-n", "-v", "-t", "fuse.s3mount", "-N", "x", "-o", "rw,what"]
        call = configure(argv, helper=True)
        assert call.config.foreground is False
        assert call.pretend is False

    def test_the_unknown_is_an_error_unless_sloppy(self) -> None:
        with pytest.raises(UsageError, match="-o what: there is no such option"):
            configure(["logs", "/mnt", "-o", "rw,what"], helper=True)

    def test_exit_codes(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.argv", ["/sbin/mount.fuse.s3mount"])
        assert main(["logs", "/mnt", "-f"]) == 0  # pretends: no daemon, no mount
        assert main(["logs", "/mnt", "-o", "what"]) == 1
        assert "-o what" in capsys.readouterr().err
