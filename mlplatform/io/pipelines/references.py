"""Whether what a pipeline or a profile names is there: plugins, and the project's own code in `lib/`."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.domain.batch.problems import PathOf, did_you_mean
from mlplatform.domain.batch.profile import Profile
from mlplatform.domain.batch.rules import Finding
from mlplatform.io.pipelines.templates import is_template
from mlplatform.io.plugins import OWN, Kind, UnknownPlugin, names, plugin
from mlplatform.io.plugins.frameworks import InvalidConfig

LIBRARY = "lib"


class Findings(NamedTuple):
    problems: list[Finding]
    warnings: list[Finding]


def of_pipeline(pipeline: Pipeline, root: Path) -> Findings:
    """What the pipeline names and is not there, and what its framework says of its configuration."""
    found = Findings([], [])
    training = pipeline.training
    at: PathOf = ("training", "model_training")
    unknown = _plugin("frameworks", training.model_training.framework, (*at, "framework"))
    found.problems.extend(unknown)
    # A serving pipeline only names the framework: its model is configured already.
    if not unknown and not pipeline.serving:
        framework = plugin("frameworks", training.model_training.framework)()
        try:
            warnings = framework.validate(training.model_training.config, pipeline.project.problem_type)
        except InvalidConfig as error:
            found.problems.extend(Finding((*at, "config", *path), text) for path, text in error.problems)
        else:
            found.warnings.extend(Finding((*at, "config"), text) for text in warnings)
    for index, custom in enumerate(training.preprocessing.custom if training.preprocessing else []):
        path = ("training", "preprocessing", "custom", index)
        problems: Iterable[Finding] = list(_code(root, custom.transform, (*path, "transform")))
        problems = problems or _arguments(root, custom.transform, custom.config, (*path, "config"))
        found.problems.extend(problems)
    blocks = [("training", training.data_checks)]
    if pipeline.serving:
        blocks.append(("serving", pipeline.serving.data_checks))
        registry = pipeline.serving.model_source.registry
        found.problems.extend(_plugin("model_registries", registry, ("serving", "model_source", "registry")))
    for block, checks in blocks:
        for index, check in enumerate(checks):
            if check.function:
                path = (block, "data_checks", index, "function")
                found.problems.extend(_code(root, check.function, path))
    selection = training.feature_selection
    for index, method in enumerate(selection.methods if selection and selection.enabled else []):
        if method.name == "lgbm_importance" and importlib.util.find_spec("lightgbm") is None:
            path = ("training", "feature_selection", "methods", index, "name")
            remedy = "pip install lightgbm, or use mutual_info"
            found.problems.append(Finding(path, "lgbm_importance needs lightgbm", remedy))
    if pipeline.deployment.mode != "batch":
        text = f"{pipeline.deployment.mode} changes nothing: pipelines run as batches"
        found.warnings.append(Finding(("deployment", "mode"), text))
    return found


def of_profile(profile: Profile) -> list[Finding]:
    """Plugins that there are not, and keys that a plugin's configuration does not have."""
    problems = []
    for name, target in profile.outputs.items():
        at = ("outputs", name)
        problems += _configured("storages", target.storage.type, target.storage.config, (*at, "storage"))
        problems += _configured(
            "data_connectors",
            target.data_connector.type,
            target.data_connector.config,
            (*at, "data_connector"),
        )
        problems += _configured(
            "secrets_providers", target.secrets.provider, target.secrets.config, (*at, "secrets"), "provider"
        )
    return problems


def _configured(
    kind: Kind, name: str, config: dict[str, Any], at: PathOf, key: str = "type"
) -> Iterator[Finding]:
    if is_template(name):
        return
    unknown = _plugin(kind, name, (*at, key))
    yield from unknown
    if unknown:
        return
    # A plugin may say which keys its configuration has.
    keys: Collection[str] | None = getattr(plugin(kind, name), "config_keys", None)
    for each in config:
        if keys is not None and each not in keys:
            near = did_you_mean(each, keys) or f"there are {', '.join(sorted(keys)) or 'none'}"
            yield Finding((*at, "config", each), f"{name} has no such key", near)


def _plugin(kind: Kind, name: str, path: PathOf) -> list[Finding]:
    # Looking through what is installed takes longer than all the rest.
    known = OWN[kind] if name in OWN[kind] else names(kind)
    if name not in known:
        what = kind.replace("_", " ").removesuffix("s").replace("registrie", "registry")
        near = did_you_mean(name, known) or f"there are {', '.join(known)}"
        return [Finding(path, f"{name!r} is no {what}", near)]
    try:
        plugin(kind, name)
    except UnknownPlugin as error:
        return [Finding(path, str(error))]
    except ImportError as error:
        return [Finding(path, f"{name} cannot be loaded: {error}", "install what it needs")]
    return []


def _code(root: Path, named: str, path: PathOf) -> Iterator[Finding]:
    """Looks for `module:name` below lib/ without running it."""
    module, _, name = named.partition(":")
    folder = root / LIBRARY
    file = folder.joinpath(*module.split(".")).with_suffix(".py")
    if not file.is_file():
        present = (each.relative_to(folder).with_suffix("") for each in folder.rglob("*.py"))
        near = did_you_mean(module, (".".join(each.parts) for each in present))
        yield Finding(path, f"there is no {LIBRARY}/{module.replace('.', '/')}.py", near)
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        yield Finding(path, f"{LIBRARY}/{file.relative_to(folder)} is no Python: {error}")
        return
    defined = set(_top_level(tree))
    if name not in defined:
        near = did_you_mean(name, defined)
        yield Finding(path, f"{LIBRARY}/{file.relative_to(folder)} defines no {name}", near)


def _arguments(root: Path, named: str, config: Mapping[str, Any], path: PathOf) -> Iterator[Finding]:
    """Looks whether a class of lib/ takes the arguments, where its own `__init__` says which it takes."""
    module, _, name = named.partition(":")
    tree = ast.parse((root / LIBRARY).joinpath(*module.split(".")).with_suffix(".py").read_bytes())
    for made in tree.body:
        if not isinstance(made, ast.ClassDef) or made.name != name or made.decorator_list:
            continue
        inits = [each for each in made.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
        if not inits and made.bases:
            return
        taken = inits[0].args if inits else ast.arguments([], [], None, [], [], None, [])
        if taken.kwarg:
            return
        known = [each.arg for each in (*taken.args[1:], *taken.kwonlyargs)]
        for key in config:
            if key not in known:
                near = did_you_mean(key, known) or f"it takes {', '.join(known) or 'none'}"
                yield Finding((*path, key), f"{named} takes no {key}", near)


def _top_level(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name for alias in aliases)
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
