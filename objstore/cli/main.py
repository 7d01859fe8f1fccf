"""The command `objstore`: its subcommands, and what becomes of errors.

An error that objstore raises on purpose, and one of the operating system, ends a command with a message on
stderr and an exit code, without a traceback:

    0    it did what was asked
    1    `check` found something, or the piece of code of `shell -c` raised an exception
    2    the command line, or the request, does not fit
    3    the store cannot be opened
    4    a conflict, or an undo that later changes stand against
    5    there is no such object
    6    the disk failed, or is full
    7    bytes on the disk are not what was written
    130  interrupted (Ctrl-C)
    141  whoever read the output has gone away
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final

import click

from objstore.cli import (
    cat,
    check,
    classes,
    copy,
    find,
    history,
    info,
    init,
    log,
    moving,
    pack,
    readers,
    serve,
    shell,
    show,
    undo,
)
from objstore.cli.output import note
from objstore.errors import ObjstoreError, StorageError

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


class Commands(click.Group):
    """The group of the commands, which turns errors into messages and exit codes."""

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # text of any store, on terminals of any encoding
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except ObjstoreError as error:
            note(f"objstore: {error}")
            raise click.exceptions.Exit(error.exit_code) from error
        except BrokenPipeError as error:
            _discard_output()
            raise click.exceptions.Exit(BROKEN_PIPE) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            note(f"objstore: {where}{error.strerror or error}")
            raise click.exceptions.Exit(StorageError.exit_code) from error
        except KeyboardInterrupt as error:
            note("objstore: interrupted; the store is as sound as before")
            raise click.exceptions.Exit(INTERRUPTED) from error
        return result


def _discard_output() -> None:
    """Point stdout to nowhere, so that the interpreter's last flush of it does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="objstore", message="%(prog)s %(version)s")
def main() -> None:
    """Look into, and look after, stores of objects.

    STORE is the directory of a store, or a URL (objstore:///absolute/path). Oids and tids are hexadecimal;
    times are ISO 8601, in UTC where they name no zone. No command but undo and shell executes what a record holds.

    Exit codes: 0 done, 1 check found something, 2 usage, 3 the store cannot be opened, 4 a conflict,
    5 no such object, 6 the disk failed, 7 damaged bytes, 130 interrupted, 141 broken pipe.
    """


for _command in (
    init.init,
    info.info,
    readers.readers,
    log.log,
    show.show,
    cat.cat,
    history.history,
    classes.classes,
    find.find,
    shell.shell,
    undo.undo,
    pack.pack,
    copy.copy,
    moving.import_,
    moving.export,
    check.check,
    serve.serve,
):
    main.add_command(_command)
