"""`privet node`: what a machine does that wants a certificate. Its commands are in `commands`.

The law of this module: the HTTP client, which only these commands need, is imported when one of them is asked for.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


class _Later(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(self._commands())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return self._commands().get(cmd_name)

    def _commands(self) -> dict[str, Any]:
        return dict(typer.main.get_group(import_module("privet.cli.node.commands").node).commands)


node = typer.Typer(cls=_Later, no_args_is_help=True, rich_markup_mode="markdown")


@node.callback()
def _node() -> None:
    """A certificate for this machine, from this or any other ACME server, kept renewed.

    ```
    privet node issue web.internal --out /etc/web \\
        --directory https://ca.internal:8555/directory --fingerprint 5C:0B:…
    privet node renew /etc/web --daemon
    ```
    """
