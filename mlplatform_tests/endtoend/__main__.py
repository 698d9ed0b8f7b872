"""`python -m mlplatform_tests.endtoend`: the tests of this folder, against the deployment at an address."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from mlplatform_tests.endtoend.configuration import VARIABLES


def _option(name: str, help: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name.replace('_', '-')}", name, metavar="URL", help=f"{help} Or {VARIABLES[name]}."
    )


@click.command(context_settings={"ignore_unknown_options": True})
@_option("api", "The control plane; unless given, everything is started on this machine.")
@_option("dagit", "Else where the jobs say that they are shown.")
@_option("orchestrator", "Else below the address of the API, as are the next two.")
@_option("scheduler", "As above.")
@_option("worker_manager", "As above.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(arguments: tuple[str, ...], **addresses: str | None) -> None:
    """Do what a user does, and see that it works. Further ARGUMENTS are pytest's.

    The token is MLPLATFORM_TOKEN; it needs the scopes for jobs, pipelines, workers and events. What is made
    is called endtoend-…, and taken away again as far as the API takes anything away.

    \b
    Examples:
      python -m mlplatform_tests.endtoend
      MLPLATFORM_TOKEN=… python -m mlplatform_tests.endtoend --api https://mlplatform.example.org -k seed
    """
    os.environ |= {VARIABLES[name]: address for name, address in addresses.items() if address}
    # One process: the tests share one deployment.
    sys.exit(pytest.main([str(Path(__file__).parent), "-p", "no:cacheprovider", "-v", "-n0", *arguments]))


if __name__ == "__main__":
    main()
