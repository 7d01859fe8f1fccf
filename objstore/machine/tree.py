"""Files and directories in memory, with the rules and errors of POSIX: the ground of `memory`.

A node is what POSIX calls an inode: it has no name of its own, so who has it open keeps it, whatever
becomes of the name. Nothing here is locked; who shares a tree between threads guards it.
"""

from __future__ import annotations

import errno
import os


class File:
    """The content of a file.

    `data` is bytes until it is written to a second time, so that whole files cost no copy; nobody but
    `write` may change it. `named` is False once the last name is gone.
    """

    __slots__ = ("__weakref__", "data", "named")

    def __init__(self, data: bytes = b"") -> None:
        self.data: bytes | bytearray = data
        self.named = True

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write at `offset`, filling a gap before it with zeros."""
        if not data:
            return
        if not self.data and not offset:
            self.data = bytes(data)
            return
        content = self.data
        if isinstance(content, bytes):
            self.data = content = bytearray(content)
        if offset > len(content):
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data


class Directory:
    """The names in a directory."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}


Node = File | Directory


def error(number: int, *paths: str) -> OSError:
    """The error that the system would raise: `OSError` gives the class that belongs to the number."""
    if len(paths) == 2:
        return OSError(number, os.strerror(number), paths[0], None, paths[1])
    return OSError(number, os.strerror(number), *paths)


class Tree:
    """A root directory and all below it. Paths are absolute."""

    __slots__ = ("root",)

    def __init__(self, root: Directory | None = None) -> None:
        self.root = root if root is not None else Directory()

    # --- finding ---

    def node(self, path: str) -> Node:
        """The node of a path. Raises FileNotFoundError, NotADirectoryError."""
        node: Node = self.root
        for name in path.split("/"):
            if not name:
                continue
            if isinstance(node, File):
                raise error(errno.ENOTDIR, path)
            try:
                node = node.names[name]
            except KeyError:
                raise error(errno.ENOENT, path) from None
        return node

    def file(self, path: str) -> File:
        """The file of a path. Raises IsADirectoryError too."""
        node = self.node(path)
        if isinstance(node, Directory):
            raise error(errno.EISDIR, path)
        return node

    def directory(self, path: str) -> Directory:
        """The directory of a path. Raises NotADirectoryError too."""
        node = self.node(path)
        if isinstance(node, File):
            raise error(errno.ENOTDIR, path)
        return node

    def place(self, path: str) -> tuple[Directory, str]:
        """The directory that holds a path's last name, be it taken or not, and that name."""
        parent, _, name = path.rstrip("/").rpartition("/")
        if not name:
            raise error(errno.EBUSY, path)
        return self.directory(parent), name

    # --- changing ---

    def create(self, path: str) -> File:
        """A new, empty file. Raises FileExistsError."""
        directory, name = self.place(path)
        if name in directory.names:
            raise error(errno.EEXIST, path)
        file = directory.names[name] = File()
        return file

    def make_directory(self, path: str) -> Directory:
        """A new, empty directory. Raises FileExistsError, for the root as well."""
        if not path.strip("/"):
            raise error(errno.EEXIST, path)
        directory, name = self.place(path)
        if name in directory.names:
            raise error(errno.EEXIST, path)
        made = directory.names[name] = Directory()
        return made

    def unlink(self, path: str) -> File:
        """Remove a file's name; the file."""
        file = self.file(path)
        directory, name = self.place(path)
        del directory.names[name]
        file.named = False
        return file

    def remove_directory(self, path: str) -> Directory:
        """Remove an empty directory; it. Raises OSError with ENOTEMPTY."""
        removed = self.directory(path)
        directory, name = self.place(path)
        if removed.names:
            raise error(errno.ENOTEMPTY, path)
        del directory.names[name]
        return removed

    def rename(self, old: str, new: str) -> Node | None:
        """Move a node to another name; the node that had that name, if one was replaced.

        A file replaces a file, a directory an empty directory.
        """
        source, old_name = self.place(old)
        if old_name not in source.names:
            raise error(errno.ENOENT, old, new)
        target, new_name = self.place(new)
        node = source.names[old_name]
        replaced = target.names.get(new_name)
        if replaced is node:
            return None
        if isinstance(node, Directory):
            if f"{new.rstrip('/')}/".startswith(f"{old.rstrip('/')}/"):
                raise error(errno.EINVAL, old, new)
            if isinstance(replaced, File):
                raise error(errno.ENOTDIR, old, new)
            if replaced is not None and replaced.names:
                raise error(errno.ENOTEMPTY, old, new)
        elif isinstance(replaced, Directory):
            raise error(errno.EISDIR, old, new)
        del source.names[old_name]
        target.names[new_name] = node
        if isinstance(replaced, File):
            replaced.named = False
        return replaced
