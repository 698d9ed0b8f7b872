"""`{{ env_var('K', 'd') }}`, `{{ secret('K') }}` and `{{ var('K') }}` in the scalars of YAML.

They are evaluated after the YAML was read, scalar by scalar, so that lines do not move and a value cannot
change the structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from mlplatform.domain.batch.problems import PathOf, Problem, did_you_mean
from mlplatform.io.pipelines.files import Node, typed
from mlplatform.io.pipelines.secrets import NAME, PLACEHOLDER, placeholder

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

FUNCTIONS = ("env_var", "secret", "var")
ALONE = re.compile(r"\{\{(?:(?!\}\}).)*\}\}", re.DOTALL)


def is_template(text: object) -> bool:
    return isinstance(text, str) and ("{{" in text or "{%" in text)


class _Failed(Exception):
    """A template cannot be evaluated; `unset`: because a variable is not set."""

    def __init__(self, message: str, remedy: str = "", unset: bool = False) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.unset = unset


@dataclass
class Templates:
    """`variables` are the environment's, `given` those of `--vars`.

    With `strict=False` a template that asks for a variable that is not set stays as it is: that of a
    target for another machine.
    """

    variables: Mapping[str, str] = field(repr=False)
    given: Mapping[str, str]
    strict: bool = True
    problems: list[Problem] = field(default_factory=list)
    # Paths whose template could not be evaluated.
    failed: set[PathOf] = field(default_factory=set)

    def render(self, node: Node, path: PathOf = ()) -> Node:
        """The node with all templates in and below it evaluated; one that cannot be stays as it is."""
        if isinstance(node.value, dict):
            value = {key: self.render(below, (*path, key)) for key, below in node.value.items()}
            return replace(node, value=value)
        if isinstance(node.value, list):
            value = [self.render(below, (*path, index)) for index, below in enumerate(node.value)]
            return replace(node, value=value)
        if not is_template(node.value) or PLACEHOLDER.fullmatch(node.value):
            return node
        try:
            text = self._evaluate(node.value)
        except _Failed as failed:
            self.failed.add(path)
            if self.strict or not failed.unset:
                self.problems.append(node.place.problem(path, str(failed), failed.remedy))
            return node
        # A placeholder stays text, and so does what stands in text.
        if not ALONE.fullmatch(node.value.strip()) or PLACEHOLDER.search(text):
            return replace(node, value=text)
        return replace(node, value=typed(text.strip()), text=text)

    def _evaluate(self, template: str) -> str:
        from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError

        asked: list[str] = []

        def secret(name: object) -> str:
            if not isinstance(name, str) or not re.fullmatch(NAME, name):
                raise _Failed(f"secret({name!r}): a secret's name is letters, digits and _ . - /")
            asked.append(placeholder(name))
            return asked[-1]

        try:
            compiled = _environment().from_string(template)
            text = compiled.render(env_var=self._env_var, secret=secret, var=self._var)
        except TemplateSyntaxError as error:
            raise _Failed(
                f"{template} is no template: {error.message}", "write {{ env_var('NAME') }}"
            ) from None
        except UndefinedError as error:
            name = re.search(r"'(\w+)' is undefined", str(error))
            near = did_you_mean(name[1], FUNCTIONS) if name else ""
            known = f"there are {', '.join(FUNCTIONS)}"
            raise _Failed(f"{template}: {error}", f"{near} {known}".strip()) from None
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise _Failed(f"{template}: {error}") from None
        if any(text.count(each) < asked.count(each) for each in asked):
            raise _Failed(
                f"{template}: a secret is only known when a step runs: no filter or condition can use it",
                "store the secret as it is needed",
            )
        return text

    def _env_var(self, name: str, default: object = None) -> object:
        missing = (
            f"the environment variable {name} is not set",
            f"set it, or give a default: env_var('{name}', 'value')",
        )
        return self._look_up(self.variables, name, default, missing)

    def _var(self, name: str, default: object = None) -> object:
        missing = (
            f"no variable {name} is given",
            f"give it: --vars {name}=value, or a default: var('{name}', 'value')",
        )
        return self._look_up(self.given, name, default, missing)

    def _look_up(
        self, values: Mapping[str, str], name: str, default: object, missing: tuple[str, str]
    ) -> object:
        if name in values:
            return values[name]
        if default is None:
            raise _Failed(*missing, unset=True)
        return default


@cache
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    # Text for YAML, not for a browser: escaping would change passwords.
    made = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    made.globals.clear()
    return made
