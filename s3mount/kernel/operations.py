"""Kernel requests -> filesystem calls. Only translates: names, attributes, errors.

INVARIANTS
- A handler raises nothing but `pyfuse3.FUSEError`: any other exception would end the
  mount. `_answers` turns ours into their errno and unknown ones into EIO with a
  traceback in the log, and lets `trio.Cancelled` pass.
- `read` does not await between having its buffer and returning it.

Names are `bytes` here and `str` below; a name that is not UTF-8 is no key of S3's.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    readdir_reply,
)

from s3mount.config import spare
from s3mount.errors import FileError, NotFound, S3MountError, Stale
from s3mount.filesystem import BLKSIZE, Attr, Filesystem
from s3mount.kernel.crawlers import Crawlers
from s3mount.kernel.errnos import EACCES, EIO, ENOSYS, EROFS, ESTALE, errno_of
from s3mount.kernel.late import Deadline, Late
from s3mount.kernel.lengthening import lengthen
from s3mount.kernel.letting_go import LettingGo
from s3mount.kernel.turns import WhileWaiting, none_soon

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# The kernel counts time-outs in 64-bit jiffies: "for ever" is ten years.
FOREVER = 10 * 365 * 86400.0

# What df shows: a bucket has no size of its own, so a round 1 PiB, all of it free.
STATFS_BLOCK = 4096
STATFS_BYTES = 1 << 50
STATFS_FILES = 1 << 32
NAME_MAX = 255


def _answers(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have every error of the handler become an errno, and one line in the log."""

    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        if log.isEnabledFor(logging.DEBUG):
            told = [arg for arg in args if isinstance(arg, int | bytes)]
            log.debug("%s%r", handler.__name__, tuple(told))
        try:
            return await WhileWaiting(handler(*args, **kwargs))
        except FUSEError:
            raise
        except S3MountError as error:
            # What a program asks for wrongly is for the program alone.
            is_the_callers = isinstance(error, NotFound | FileError) and not isinstance(
                error, Stale
            )
            level = logging.DEBUG if is_the_callers else logging.WARNING
            log.log(level, "%s: %s", handler.__name__, error)
            raise FUSEError(errno_of(error)) from error
        except Exception as error:
            log.exception("%s failed: this is a bug, please report it", handler.__name__)
            raise FUSEError(EIO) from error

    return answer


def _timeout(ttl: float) -> float:
    return FOREVER if math.isinf(ttl) else ttl


class _Answers:
    """What pyfuse3 is given as the attributes of an inode.

    It copies what it is given, before anything else is answered: so there is one for each kind of
    file, of which only what differs is set, which saves a third of the work of an answer.
    """

    def __init__(self) -> None:
        self._kinds: dict[int, tuple[EntryAttributes, list[float]]] = {}

    def of(self, attr: Attr) -> EntryAttributes:
        """The attributes; good until the next call."""
        ino, mode, _, _, _, size, mtime_ns, ttl = attr
        entry, told = self._kinds.get(mode) or self._new(attr)
        if told[0] != ttl:
            told[0] = ttl
            entry.entry_timeout = entry.attr_timeout = _timeout(ttl)
        entry.st_ino = InodeT(ino)
        entry.st_size = size
        entry.st_blocks = -(-size // 512)  # st_blocks counts 512 bytes, whatever st_blksize is
        if told[1] != mtime_ns:
            told[1] = mtime_ns
            entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = mtime_ns
        return entry

    def _new(self, attr: Attr) -> tuple[EntryAttributes, list[float]]:
        entry = EntryAttributes()
        entry.generation = 0
        entry.st_mode = ModeT(attr.mode)
        entry.st_nlink = attr.nlink
        entry.st_uid = attr.uid
        entry.st_gid = attr.gid
        entry.st_blksize = BLKSIZE
        self._kinds[attr.mode] = entry, [-1.0, math.nan]
        return self._kinds[attr.mode]


def _absent(ttl: float) -> EntryAttributes:
    """A negative dentry: the kernel remembers for `ttl` seconds that the name is not there."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(0)
    entry.entry_timeout = _timeout(ttl)
    return entry


def _name(name: bytes) -> str | None:
    """The name as part of a key; None when it can be none."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


class Operations(pyfuse3.Operations):
    """What the kernel may ask."""

    def __init__(self, filesystem: Filesystem, crawlers: Crawlers, deadline: float) -> None:
        super().__init__()
        self._filesystem = filesystem
        # A request ends before, and says itself why it was not done in time.
        self._deadline = deadline - spare(deadline) * 2 / 3
        self._crawlers = crawlers
        self._answers = _Answers()
        self._late = Late(spare(deadline) / 3)
        filesystem.on_changed = self._invalidate_attributes
        filesystem.on_longer = lengthen
        self.letting_go = LettingGo()
        filesystem.on_lost = self.letting_go.ask

    # --- names --------------------------------------------------------------------

    @_answers
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        text = _name(name)
        if text is None:
            return _absent(0.0)
        answer = self._filesystem.known(parent_inode, text)
        if answer is None:
            with self._late.names_in_time(parent_inode, self._deadline):
                answer = await self._filesystem.lookup(parent_inode, text)
        attr, ttl = answer
        return _absent(ttl) if attr is None else self._answers.of(attr)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        # There is no answer to it: not even FUSEError may leave it.
        try:
            for ino, nlookup in inode_list:
                self._filesystem.forget(ino, nlookup)
        except Exception:
            log.exception("forget failed: this is a bug, please report it")

    @_answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._answers.of(self._filesystem.getattr(inode))

    # --- directories --------------------------------------------------------------

    @_answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        if self._crawlers.is_one(ctx.pid):
            raise FUSEError(EACCES)
        return FileHandleT(self._filesystem.opendir(inode))

    @_answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        if start_id == 0:
            await self.letting_go.catch_up()
        entries = self._filesystem.known_entries(fh, start_id)
        if entries is None:
            with self._late.names_in_time(self._filesystem.directory_of(fh), self._deadline):
                entries = await self._filesystem.entries(fh, start_id)
        answer, taken = self._answers.of, self._filesystem.taken
        for entry in entries:
            name, _, attr, cursor = entry
            if not readdir_reply(token, FileNameT(name.encode()), answer(attr), cursor):
                return
            taken(entry)

    @_answers
    async def releasedir(self, fh: FileHandleT) -> None:
        self._filesystem.releasedir(fh)

    # --- files --------------------------------------------------------------------
    # Programs that read files have more to do between two requests than those that ask for names,
    # and who fetches for them needs the time.

    @_answers
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND):
            raise FUSEError(EROFS)
        none_soon()
        if not self._filesystem.is_current(inode):
            raise FUSEError(ESTALE)  # has the kernel look the name up anew, and open what is there
        # An inode is one version of an object: its pages stay right for as long as it lives.
        return FileInfo(fh=FileHandleT(self._filesystem.open(inode)), keep_cache=True)

    # pyfuse3 takes any contiguous buffer (PyObject_GetBuffer), its stub says `bytes`: a
    # memoryview of the block saves the copy.
    @_answers
    async def read(  # type: ignore[override]
        self, fh: FileHandleT, off: int, size: int
    ) -> memoryview:
        data = self._filesystem.known_bytes(fh, off, size)
        if data is None:
            with Deadline(self._deadline):
                data = await self._filesystem.read(fh, off, size)
        none_soon()
        return data

    @_answers
    async def release(self, fh: FileHandleT) -> None:
        self._filesystem.release(fh)
        none_soon()

    @_answers
    async def flush(self, fh: FileHandleT) -> None:
        """Nothing is written, so close(2) has nothing to report.

        ENOSYS is success to close(2), and the kernel never asks again (`fc->no_flush`): a
        request less for each file. It cannot be taken back: once files are written, the very
        first answer must be another.
        """
        raise FUSEError(ENOSYS)

    # --- the whole ----------------------------------------------------------------

    @_answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        data = StatvfsData()
        data.f_bsize = data.f_frsize = STATFS_BLOCK
        data.f_blocks = data.f_bfree = data.f_bavail = STATFS_BYTES // STATFS_BLOCK
        data.f_files = data.f_ffree = data.f_favail = STATFS_FILES
        data.f_namemax = NAME_MAX
        return data

    async def _invalidate_attributes(self, ino: int) -> None:
        """Have the kernel ask for the attributes again. In a thread, since it may block."""
        await trio.to_thread.run_sync(_invalidate_attributes, ino)

    # --- writing: not here yet; the mount is ro, so the kernel says EROFS itself ---

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        raise FUSEError(EROFS)

    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        raise FUSEError(EROFS)

    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        raise FUSEError(EROFS)

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        raise FUSEError(EROFS)

    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        raise FUSEError(EROFS)

    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        raise FUSEError(EROFS)

    async def rename(  # noqa: PLR0917  pyfuse3's signature
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        raise FUSEError(EROFS)

    async def link(
        self,
        inode: InodeT,
        new_parent_inode: InodeT,
        new_name: FileNameT,
        ctx: RequestContext,
    ) -> EntryAttributes:
        raise FUSEError(EROFS)

    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        raise FUSEError(EROFS)


def _invalidate_attributes(ino: int) -> None:
    try:
        pyfuse3.invalidate_inode(InodeT(ino), attr_only=True)
    except OSError as error:  # ENOENT: the kernel has forgotten the inode meanwhile
        log.debug("attributes of inode %d not invalidated: %s", ino, error)
