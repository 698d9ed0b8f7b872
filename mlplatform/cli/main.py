"""`mlplatform`: the command line, one module per group of commands."""

from __future__ import annotations

import click

from mlplatform.cli import demo, push, results, stack


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Online learning, batch ML and training jobs as one Dagster asset graph."""


for command in (demo.demo, demo.run, stack.up, stack.status, stack.down, results.results, push.push):
    main.add_command(command)
