"""The entry of the command line: which commands there are, and the one place where errors are caught."""

from __future__ import annotations

import errno
import sys
from collections import Counter
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.exceptions import Abort, TyperException
from typer.exceptions import Exit as TyperExit

from recbench.cli import render
from recbench.errors import Exit, RecbenchError


class Command(TyperCommand):
    """A command that refuses an option given twice: the last one would win in silence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse repeated single-valued options, then parse as usual."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for param, times in Counter(order).items():
                if times > 1 and param.nargs == 1 and not getattr(param, "multiple", False):
                    raise RecbenchError(
                        f"Option {max(param.opts, key=len)} is given {times} times.",
                        why="Only one of the values could be used.",
                        fix=f"Leave one: recbench {self.name} {max(param.opts, key=len)} ...",
                    )
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="recbench",
    help="Benchmark sequential recommenders, above all those that reason in latent space before they rank.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


COMMANDS = (
    "prepare",
    "audit",
    "ids",
    "train",
    "compare",
    "report",
    "verify",
    "evaluate",
    "verify-model",
    "recommend",
    "list",
    "show",
    "export",
    "demo",
    "doctor",
)
"""One file of ``recbench.cli`` each, and in it a function, named like its command; a dash is an underscore there."""


def _register() -> None:
    """Attach the commands. Their modules are light: what is heavy is imported when a command runs."""
    for name in COMMANDS:
        function = name.replace("-", "_")
        module = import_module(f"recbench.cli.{function}")
        app.command(name, cls=Command)(getattr(module, function))


_register()


def run(args: list[str] | None = None) -> int:
    """Run one command line and return its exit code. Every error a user can cause is answered here."""
    try:
        code = app(args, prog_name="recbench", standalone_mode=False)
    except RecbenchError as error:
        render.show_error(error)
        return int(error.code)
    except TyperExit as done:
        return done.exit_code
    except (KeyboardInterrupt, Abort):
        render.err.print("stopped")
        return int(Exit.STOPPED)
    except TyperException as error:
        if said := error.format_message().replace(
            "Value error, ", ""
        ):  # else no arguments at all: the help was shown in place of a message
            first = (sys.argv[1:] if args is None else args)[:1]
            fix = " ".join(["recbench", *(name for name in first if name in COMMANDS), "--help"])
            render.show_error(RecbenchError(said, why="The command line could not be read.", fix=fix))
        return int(Exit.USAGE)
    except OSError as error:
        render.show_error(_told(error))
        return int(Exit.RUN)
    return code if isinstance(code, int) else int(Exit.OK)  # a command that ends by typer.Exit


def _told(error: OSError) -> RecbenchError:
    """What the system refuses and a user can mend, in words; any other trouble is raised again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "the output"
        return RecbenchError(f"No space is left for {where}.", why=str(error), fix="Free some, and run it again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        what, fix = f"{error.filename} is closed to you.", "Ask its owner, or copy its folder to a place of your own."
        return RecbenchError(what, why=str(error), fix=fix)
    raise error


def main() -> None:
    """Console entry point."""
    sys.exit(run())
