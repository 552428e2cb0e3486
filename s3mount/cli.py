"""The command `s3mount`: command line, `-o`, config file and environment -> `Config` -> a mount.

Also runs as mount(8)'s helper, under a name that starts with "mount." (/sbin/mount.fuse.s3mount).
Precedence: command line and `-o` (the last one wins), then the config file, then the defaults.

Exit codes: 0 the mount is usable; 2 the command line or config file is wrong; 1 anything else;
128 + N when signal N came first. As mount(8)'s helper, mount(8)'s own: 1 for a wrong call, 32 for
a mount that failed.

INVARIANT: with s3mount/ctl.py the only place that reads the environment, and with detach.py the
only one that knows of processes. Nothing heavy (trio, boto3) is imported before the fork.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s3mount import __version__, detach, log, sd_notify
from s3mount import config as configuration
from s3mount.config import Config
from s3mount.errors import S3MountError, UsageError
from s3mount.fstab import MountOptions
from s3mount.options import (
    BUCKET,
    CACHE_DIR_OPTION,
    COMMAND_LINE,
    CONFIG,
    FSNAME,
    GROUPS,
    MOUNTPOINT,
    OPTIONS,
    READ_ONLY,
    Option,
    Setting,
    find,
    suggestion,
)
from s3mount.source import parse_source

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
# mount(8), EXIT STATUS
HELPER_WRONG_USAGE, HELPER_FAILED = 1, 32

# Objects made beyond those freed until garbage is looked for. A file that is read leaves some 100
# behind that refer to each other; with Python's 700 the search takes a tenth of the time.
GC_THRESHOLD = 5_000

_USAGE = "s3mount [OPTION...] BUCKET[/PREFIX] MOUNTPOINT"
_DESCRIPTION = """\
Mount an S3 bucket at a directory. BUCKET may also be s3://BUCKET/PREFIX, an
access-point alias or an ARN. Unmount with umount or fusermount3 -u.
"""
_EPILOG = """\
Sizes are in units of 1024: 512K, 64M, 10G. Times: 250ms, 30s, 5m, 1h, forever.
A switch that the config file turned on is turned off by --no-NAME.
In fstab: BUCKET MOUNTPOINT fuse.s3mount ro,_netdev,nofail,allow_other 0 0
"""

_logger = logging.getLogger(__name__)


class Call(NamedTuple):
    """What one command line asks for."""

    config: Config
    pretend: bool  # mount -f: check everything, mount nothing
    notices: tuple[str, ...]  # what the user should know though it is no error


# --- the command line -------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse as a tokenizer: values are read by the table, errors are `UsageError`."""

    def error(self, message: str) -> Any:
        """Say it in our words where argparse's are about itself."""
        name, _, problem = message.removeprefix("argument ").partition(": ")
        name = name.rpartition("/")[2]  # "-f/--foreground"
        found = find(name.lstrip("-"), COMMAND_LINE)
        if found is not None and found[0].is_flag:
            raise UsageError(f"{name} takes no value", f"give {name} alone to set it")
        if found is not None:
            raise UsageError(f"{name} needs a value", f"give {found[0].permitted}")
        if name == "-o":
            raise UsageError("-o needs a value", "give options, as in -o ro,allow_other")
        raise UsageError(f"{name}: {problem}" if problem else name, "see s3mount --help")


class _Keep(argparse.Action):
    """Keeps the words in the order of the command line: `(option, text, name)`.

    The option is None for `-o`.
    """

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, option: Option | None, **rest: Any
    ) -> None:
        super().__init__(option_strings, dest, **rest)
        self._option = option

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        text = values if isinstance(values, str) else None
        namespace.words.append((self._option, text, option_string or ""))


def build_parser(*, helper: bool = False) -> argparse.ArgumentParser:
    """The parser of all options. `helper`: with mount(8)'s own meaning of `-f`, `-s`..."""
    width = min(shutil.get_terminal_size().columns, 100)
    parser = _Parser(
        prog="s3mount",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        add_help=False,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=29, width=width
        ),
    )
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="help", help="show this and exit")
    general.add_argument(
        "--version",
        action="version",
        version=f"s3mount {__version__}",
        help="show the version and exit",
    )
    general.add_argument(
        "-o",
        action=_Keep,
        option=None,
        metavar="OPT[=VALUE],...",
        help="options as for mount(8): those below without the dashes, and ro, nofail, noexec...",
    )
    for title in GROUPS:
        group = parser.add_argument_group(title)
        for option in OPTIONS:
            if option.group == title and COMMAND_LINE in option.places:
                _add(group, option, helper=helper)
    if helper:
        for letter in "sfnv":
            parser.add_argument(f"-{letter}", action="store_true", help=argparse.SUPPRESS)
        for letter in "tN":
            parser.add_argument(f"-{letter}", help=argparse.SUPPRESS)
    return parser


def _add(group: argparse._ArgumentGroup, option: Option, *, helper: bool) -> None:
    text = option.help
    if option.choices:
        text += f": {', '.join(option.choices)}"
    if option.default:
        text += f" (default: {option.default})"
    names = [f"--{option.name}"]
    if option.short and not helper:
        names.insert(0, option.short)
    if not option.is_flag:
        metavar = "LEVEL" if option.choices else option.kind.metavar
        group.add_argument(*names, action=_Keep, option=option, metavar=metavar, help=text)
        return
    group.add_argument(*names, action=_Keep, option=option, nargs=0, help=text)
    group.add_argument(
        f"--{option.negated_name}", action=_Keep, option=option, nargs=0, help=argparse.SUPPRESS
    )


def _split_words(argv: Sequence[str], *, helper: bool) -> tuple[argparse.Namespace, list[str]]:
    """The options as a namespace with `words`, and what is no option."""
    argv = list(argv)
    behind: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, behind = argv[:at], argv[at + 1 :]
    # Both positionals are optional here, since the config file may hold them; argparse would
    # not find the second one behind an option, so they are sorted out by hand.
    namespace, rest = build_parser(helper=helper).parse_known_args(
        argv, argparse.Namespace(words=[])
    )
    for word in rest:
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            meant = suggestion(name, COMMAND_LINE)
            raise UsageError(
                f"there is no option {name}",
                f"did you mean --{meant}?" if meant else "see s3mount --help for all of them",
            )
    return namespace, rest + behind


def _settings(
    namespace: argparse.Namespace, positionals: list[str], mount_options: MountOptions
) -> list[Setting]:
    """All that the command line sets, in its order."""
    if len(positionals) > 2:
        raise UsageError(f"{positionals[2]!r} is one argument too many", f"usage: {_USAGE}")
    given = [
        Setting(option, option.parse(text, name), name)
        for option, text, name in zip(
            (BUCKET, MOUNTPOINT), positionals, ("BUCKET", "MOUNTPOINT"), strict=False
        )
    ]
    for option, text, name in namespace.words:
        if option is None:
            given += mount_options.read(text)
        elif option.is_flag:
            found = find(name.lstrip("-"), COMMAND_LINE)
            given.append(Setting(option, found is None or not found[1], name))
        else:
            given.append(Setting(option, option.parse(text, name), name))
    return given


# --- all sources together ---------------------------------------------------------


def configure(argv: Sequence[str], *, helper: bool = False) -> Call:
    """What `argv` (without the program's name) asks for. Raises `UsageError`."""
    namespace, positionals = _split_words(argv, helper=helper)
    mount_options = MountOptions(sloppy=helper and namespace.s)
    given = _settings(namespace, positionals, mount_options)
    filed: list[Setting] = []
    for setting in given:
        if setting.option is CONFIG:
            filed = _read_file(_absolute(setting.value))
    asked = {setting.option.config_field for setting in (*filed, *given)}
    values = _merged(filed, given)
    notices = []
    if not values.get(READ_ONLY.config_field, True):
        # mount(8) passes `rw` on whenever nobody said `ro`, and has this very warning.
        notices.append("WARNING: the bucket is mounted read-only; say ro to silence this")
        values[READ_ONLY.config_field] = True
    config = Config(**values, mount_options=mount_options.kernel)
    configuration.check(config)
    if config.ca_bundle is not None and not config.ca_bundle.is_file():
        raise UsageError(
            f"--ca-bundle {str(config.ca_bundle)!r} is not a file",
            "give a file of certificates in PEM form",
        )
    if config.cache_dir is None and CACHE_DIR_OPTION.config_field not in asked:
        notices.append("no disk cache, as you have no home directory; give one by --cache-dir")
    return Call(config, bool(helper and namespace.f), tuple(notices))


def _merged(filed: Iterable[Setting], given: Iterable[Setting]) -> dict[str, Any]:
    """The fields of `Config` that were set."""
    chosen = {setting.option: setting for setting in filed}
    for setting in given:
        # An `rw` may be mount(8)'s own: too weak to contradict the file.
        if setting.where != "-o rw" or setting.option not in chosen:
            chosen[setting.option] = setting
    if BUCKET not in chosen:
        raise UsageError("no bucket was named", f"usage: {_USAGE}")
    if MOUNTPOINT not in chosen:
        raise UsageError("no mountpoint was named", f"usage: {_USAGE}")
    source = parse_source(chosen[BUCKET].value)
    values = {
        option.config_field: setting.value
        for option, setting in chosen.items()
        if option not in (CONFIG, FSNAME)
    }
    if FSNAME in chosen:
        values["source"] = chosen[FSNAME].value
    if CACHE_DIR_OPTION not in chosen:
        values["cache_dir"] = default_cache_dir()
    values |= {"bucket": source.bucket, "prefix": source.prefix}
    # Who lowers the deadline alone should not be told about another option.
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    deadline = values.get("deadline", defaults["deadline"])
    values["read_timeout"] = min(values.get("read_timeout", defaults["read_timeout"]), deadline)
    return {
        name: _absolute(value) if isinstance(value, Path) else value
        for name, value in values.items()
    }


def _read_file(path: Path) -> list[Setting]:
    from s3mount import configfile  # noqa: PLC0415 -- tomllib: only for those who have such a file

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--config {str(path)!r} cannot be read: {error.strerror}",
            "give a TOML file that you may read",
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {str(path)!r} is not UTF-8", "TOML files are UTF-8") from None
    return configfile.parse(text, str(path))


def _absolute(path: Path) -> Path:
    """As seen from anywhere, since the daemon works in "/"; "~/" is one's home, also in fstab."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def default_cache_dir() -> Path | None:
    """$XDG_CACHE_HOME/s3mount, or /var/cache/s3mount for root, or ~/.cache/s3mount.

    None for a user without a home, as in many containers.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification has relative ones ignored
        return Path(base, "s3mount")
    if os.geteuid() == 0:
        return Path("/var/cache/s3mount")
    directory = os.path.expanduser("~/.cache/s3mount")
    return Path(directory) if os.path.isabs(directory) else None


# --- running ----------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    helper = Path(sys.argv[0]).name.startswith("mount.")
    try:
        call = configure(sys.argv[1:] if argv is None else argv, helper=helper)
        code = OK if call.pretend else _start(call)
    except UsageError as error:
        complain(error)
        code = WRONG_USAGE
    except KeyboardInterrupt:
        code = INTERRUPTED
    if helper:
        return {WRONG_USAGE: HELPER_WRONG_USAGE, FAILED: HELPER_FAILED}.get(code, code)
    return code


def complain(error: object) -> None:
    """One line on stderr; what is not printable in it is escaped."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
    print(f"s3mount: {text}", file=sys.stderr)


def _start(call: Call) -> int:
    # Taken out, so that no credential process or fusermount3 speaks in our name.
    address = os.environ.pop("NOTIFY_SOCKET", None)

    def run(ready: detach.Ready) -> int:
        def usable() -> None:
            ready()
            sd_notify.notify(address, f"READY=1\nMAINPID={os.getpid()}")
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 10, 10)
            gc.enable()

        def stopping() -> None:
            sd_notify.notify(address, "STOPPING=1")

        return _serve(call, usable, stopping)

    if call.config.foreground:
        return run(lambda: None)
    return detach.in_background(run)


def _serve(call: Call, ready: detach.Ready, stopping: detach.Ready) -> int:
    config = call.config
    try:
        log.setup(
            "debug" if config.debug else config.log_level,
            file=config.log_file,
            foreground=config.foreground,
            journal=_stderr_is_journal(),
        )
        for notice in call.notices:
            _logger.warning("%s", notice)
        # What the start makes is there to stay: looking for garbage in it, until the mount is
        # usable and later again and again, takes a tenth of the time that the start takes.
        gc.disable()
        from s3mount import daemon  # noqa: PLC0415 -- trio, boto3: not before the fork

        daemon.serve(config, ready, stopping)
    except S3MountError as error:
        complain(error)
        log.said(error)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except ImportError as error:
        complain(f"{error}; install again, with the system packages that the README names")
        _logger.debug("import failed", exc_info=True)
        return FAILED
    except Exception as error:
        complain(f"internal error: {error!r}; run with -f --debug to see where, and report it")
        _logger.debug("internal error", exc_info=True)
        log.said(f"internal error: {error!r}", traceback=not config.debug)
        return FAILED
    return OK


def _stderr_is_journal() -> bool:
    """Whether systemd's journal reads our stderr (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        stat = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
