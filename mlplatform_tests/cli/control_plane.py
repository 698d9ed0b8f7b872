"""The command line against a control plane of the test's own."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from mlplatform.cli.main import main


class CommandLine:
    """`mlplatform … --api ADDRESS`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(self, *arguments: str, input: str | None = None, code: int = 0) -> Result:
        """What a command says, which ends with `code`."""
        # Behind -- there is only the command of a job.
        at = arguments.index("--") if "--" in arguments else len(arguments)
        words = [*arguments[:at], "--api", self.address, *arguments[at:]]
        result = CliRunner().invoke(main, words, input=input)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    def json(self, group: str, command: str, *arguments: str) -> Any:
        return json.loads(self(group, command, "--json", *arguments).stdout)
