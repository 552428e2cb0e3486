"""Everything a bucket ever held, with times: what an answer is judged by.

Written from the rules that docs/semantics.md tells, not from the code: a name is what the
keys say, a directory shadows a file, and an answer is right when what it says was true at
some moment within the time for which it may be old.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Version:
    """One object as it was put."""

    etag: str
    body: bytes


@dataclass
class History:
    """For each key what it held, and from which moment (seconds) on."""

    changes: dict[str, list[tuple[float, Version | None]]] = field(default_factory=dict)

    def put(self, key: str, version: Version, now: float) -> None:
        """The key holds this version from now on."""
        self.changes.setdefault(key, []).append((now, version))

    def delete(self, key: str, now: float) -> None:
        """The key is gone from now on."""
        if key in self.changes:
            self.changes[key].append((now, None))

    def versions(self, key: str) -> list[Version]:
        """Every version that the key ever held."""
        return [version for _, version in self.changes.get(key, []) if version is not None]

    def held(self, key: str, since: float, until: float) -> list[Version | None]:
        """What the key held at any moment of [since, until]."""
        found: list[Version | None] = []
        current: Version | None = None
        for at, version in self.changes.get(key, []):
            if at > until:
                break
            if at >= since:
                found.append(current)
            current = version
        return [*found, current]

    def had_below(self, prefix: str, since: float, until: float) -> set[bool]:
        """Whether any key lay below the prefix: every answer that was true in [since, until]."""
        keys = [key for key in self.changes if key.startswith(prefix)]
        moments = {since, until} | {
            at for key in keys for at, _ in self.changes[key] if since <= at <= until
        }
        # At the moment of a change both are true: what was, and what is.
        just_before = {self._has(keys, at, before=True) for at in moments if at > since}
        return just_before | {self._has(keys, at, before=False) for at in moments}

    def names_ever(self, prefix: str) -> set[str]:
        """The names that the directory ever showed."""
        rests = (key[len(prefix) :] for key in self.changes if key.startswith(prefix))
        return {rest.partition("/")[0] for rest in rests} - {""}

    def _has(self, keys: list[str], at: float, *, before: bool) -> bool:
        return any(self._at(key, at, before=before) is not None for key in keys)

    def _at(self, key: str, at: float, *, before: bool) -> Version | None:
        current = None
        for moment, version in self.changes.get(key, []):
            if moment > at or (before and moment == at):
                break
            current = version
        return current

    def kinds(self, prefix: str, name: str, since: float, until: float) -> Iterator[str | Version]:
        """What the name may have been said to be: "directory", "absent", or a version.

        A name is two facts, the key itself and what lies below it, that may be learned at
        two moments.
        """
        below = self.had_below(f"{prefix}{name}/", since, until)
        if True in below:
            yield "directory"
        if False in below:
            for version in self.held(prefix + name, since, until):
                yield "absent" if version is None else version
