"""`python -m mlplatform.cli`: the same as `mlplatform`."""

from mlplatform.cli.main import main

main(prog_name="mlplatform")
