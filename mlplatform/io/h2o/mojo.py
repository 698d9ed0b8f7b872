"""Scores with a MOJO, H2O's model file, in this process: a Java virtual machine inside it, no H2O server.

A call from Python into Java costs more than the score of a row. So the loop over rows stands in Java, put
together from `java.lang.invoke`, which compiles it; only pieces of tables cross over, and Python's other
threads run meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlplatform.io.h2o.columns import categories, numbers
from mlplatform.io.h2o.java import INSTALL, jar, libjvm
from mlplatform.io.plugins.frameworks import FrameworkError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# A MOJO makes garbage for each row: with a small young generation, a fifth of the time goes into collecting.
HEAP, YOUNG = "1g", "256m"
# Numbers that cross over at once, and the fewest rows: the heap's size does not depend on that of a table.
PIECE_NUMBERS, PIECE_ROWS = 2**14, 256


class Mojo:
    """A model, from its file. Threads may share it.

    Attributes:
        columns: the features that it reads, in its order.
        response: levels of the response in the order of the scores; None for regression.

    Raises:
        FrameworkError: the file is no MOJO, or Java or h2o are missing.
    """

    def __init__(self, file: Path) -> None:
        import pandas as pd

        self._java = machine()
        try:
            model = self._java.load(file)
        except self._java.Throwable as error:
            raise FrameworkError(f"{file} is no MOJO that this h2o can read: {message(error)}") from error
        count = int(model.nfeatures())
        domains = [None if one is None else [str(level) for level in one] for one in model.getDomainValues()]
        self.columns = [str(name) for name in model.getNames()][:count]
        self.response = domains[count] if model.isClassifier() else None
        self._levels = [None if levels is None else pd.Index(levels) for levels in domains[:count]]
        self._width = int(model.getPredsSize())
        self._loop = self._java.loop(model)

    def score(self, frame: pd.DataFrame) -> np.ndarray:
        """(n, k) probabilities in the order of `response`, or (n,) numbers; by one thread for each CPU.

        Raises:
            FrameworkError: the frame does not fit the model, or Java failed.
        """
        import numpy as np

        rows = self.encode(frame)
        scores = np.empty((len(rows), self._width))
        step = max(PIECE_ROWS, PIECE_NUMBERS // max(1, len(self.columns)))
        pieces = [slice(start, start + step) for start in range(0, len(rows), step)]
        threads = max(1, min(self._java.processors, len(pieces)))

        def work(thread: int) -> None:
            with self._java.attached():
                for piece in pieces[thread::threads]:
                    scores[piece] = self._java.run(self._loop, rows[piece], self._width)

        try:
            if threads < 2:
                work(0)
            else:
                with ThreadPoolExecutor(threads) as pool:
                    list(pool.map(work, range(threads)))
        except self._java.Throwable as error:
            raise FrameworkError(f"the MOJO cannot score: {message(error)}") from error
        # Of a classifier, the first is the number of the class that H2O would choose.
        return scores[:, 0] if self.response is None else scores[:, 1 : 1 + len(self.response)]

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(n, columns) numbers as the model reads them: a level is its index; what is missing, infinite or
        an unknown level is NaN.

        Raises:
            FrameworkError: a column is missing, or holds something else than numbers.
        """
        import numpy as np

        if missing := [name for name in self.columns if name not in frame.columns]:
            raise FrameworkError(
                f"the model reads the columns {', '.join(missing)}, which the data do not have: "
                "bring them back, or train the model anew without them"
            )
        encoded = np.empty((len(frame), len(self.columns)))
        for index, (name, levels) in enumerate(zip(self.columns, self._levels, strict=True)):
            column = cast("pd.Series", frame[name])
            if levels is None:
                encoded[:, index] = numbers(column)
                continue
            codes, texts = categories(column)
            places = levels.get_indexer(texts).astype(float)
            places[places < 0] = np.nan
            # The last one is for code -1.
            encoded[:, index] = np.append(places, np.nan)[codes]
        return encoded


class Machine:
    """The Java virtual machine of this process, of which there can be one, started once."""

    def __init__(self) -> None:
        try:
            import jpype
        except ImportError as error:
            raise FrameworkError(f"scoring H2O's models needs jpype1: {INSTALL}") from error
        # The package's own classes, never some that came with a model.
        if jpype.isJVMStarted():
            jpype.addClassPath(jar())
        else:
            options = [f"-Xmx{HEAP}", f"-Xmn{YOUNG}", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
            try:
                # Signals stay Python's.
                jpype.startJVM(str(libjvm()), "-Xrs", *options, classpath=[jar()], interrupt=False)
            except (OSError, RuntimeError) as error:
                raise FrameworkError(f"Java does not start in this process: {error}") from error
        self.process = os.getpid()
        self.Throwable: Any = jpype.JClass("java.lang.Throwable")
        self._thread = jpype.JClass("java.lang.Thread")
        self._of = jpype.JArray.of
        # Knows the limits of a container.
        self.processors = int(jpype.JClass("java.lang.Runtime").getRuntime().availableProcessors())

    def load(self, file: Path) -> Any:
        import jpype

        return jpype.JClass("hex.genmodel.MojoModel").load(str(file))

    def loop(self, model: Any) -> Any:
        """`(double[][] rows, double[][] scores)`: `model.score0(rows[i], scores[i])` for each i."""
        import jpype

        handles = jpype.JClass("java.lang.invoke.MethodHandles")
        kind = jpype.JClass("java.lang.invoke.MethodType").methodType
        # What Java calls double[].class and double[][].class.
        row, rows = (jpype.JClass("java.lang.Class").forName(name) for name in ("[D", "[[D"))
        nothing, integer = jpype.JClass("java.lang.Void").TYPE, jpype.JClass("java.lang.Integer").TYPE
        score = handles.publicLookup().findVirtual(
            jpype.JClass("hex.genmodel.GenModel").class_, "score0", kind(row, row, row)
        )
        score = score.bindTo(model).asType(kind(nothing, row, row))
        at = handles.arrayElementGetter(rows)
        # (rows, i, scores, i), then (i, rows, scores) as the loop wants it.
        score = handles.collectArguments(handles.collectArguments(score, 0, at), 2, at)
        score = handles.permuteArguments(score, kind(nothing, integer, rows, rows), 1, 0, 2, 0)
        return handles.countedLoop(handles.dropArguments(handles.arrayLength(rows), 1, rows), None, score)

    def run(self, loop: Any, rows: np.ndarray, width: int) -> np.ndarray:
        """(n, width) scores."""
        import numpy as np

        scores = self._of(np.zeros((len(rows), width)))
        loop.invokeWithArguments(self._of(rows), scores)
        return np.asarray(scores)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Lets go of Java's thread again if this one of Python had none: it would stay when ours ends."""
        before = self._thread.isAttached()
        try:
            yield
        finally:
            if not before:
                self._thread.detach()


_machine: Machine | None = None
_starting = threading.Lock()


def machine() -> Machine:
    """Started on first use.

    Raises:
        FrameworkError: Java, h2o or jpype1 are missing, or this process is the fork of one that has Java.
    """
    global _machine
    with _starting:
        if _machine is None:
            _machine = Machine()
        if _machine.process != os.getpid():
            raise FrameworkError(
                "Java does not survive a fork of its process: start worker processes by spawn, "
                "or before the first H2O model is scored"
            )
        return _machine


def message(error: Any) -> str:
    """Of a Throwable, in one line."""
    said = f"{error.getClass().getSimpleName()}: {error.getMessage()}"
    if "OutOfMemory" in said:
        said += f" (Java has {HEAP} here; the variable _JAVA_OPTIONS=-Xmx4g gives it more)"
    return said
