"""Registers the networks when detectron2.modeling is imported, without importing it before.

Registering in `add_isonet_config` and the public names would be shorter, but `import d2_isonet;
from detectron2.modeling import build_model` must register too.
"""

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODELING = "detectron2.modeling"
PACKAGE = "d2_isonet"
REGISTERING_MODULES = (
    "modeling.backbone.build",
    "modeling.backbone.cnn9",
    "modeling.classifier",
    "modeling.roi_heads",
)


def register_with_modeling() -> None:
    """Fill detectron2's registries, now or as soon as detectron2.modeling is imported.

    The import that triggers the registration raises the errors of the registering modules.
    """
    if MODELING in sys.modules:
        _import_registering_modules()
    elif not any(isinstance(finder, ImportWatcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, ImportWatcher())


def _import_registering_modules() -> None:
    for name in REGISTERING_MODULES:
        importlib.import_module(f"{PACKAGE}.{name}")


class ImportWatcher(MetaPathFinder):
    """Imports the registering modules once detectron2.modeling and all our modules are complete.

    It waits for our modules because one of them may import detectron2.modeling while it is only
    half imported itself; the registering modules could not import its later definitions. A
    post-import hook on detectron2.modeling (such as wrapt's) cannot know that.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._unfinished = 0  # number of our modules that are being imported, in all threads
        self._modeling_is_complete = False
        self._registered = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec from the other finders, whose loader runs the body through `execute`."""
        if self._registered or not (name == MODELING or name.startswith(f"{PACKAGE}.")):
            return None
        finders = [x for x in sys.meta_path if x is not self and hasattr(x, "find_spec")]
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next(filter(None, specs), None)
        if spec and spec.loader:
            run = functools.partial(self.execute, spec.loader.exec_module)
            spec.loader.exec_module = run  # type: ignore[method-assign]
        return spec

    def execute(self, body: Callable[[ModuleType], None], module: ModuleType) -> None:
        """Run the body of a module, then register if everything is complete."""
        is_ours = module.__name__ != MODELING
        with self._lock:
            self._unfinished += is_ours
        try:
            body(module)
        finally:
            with self._lock:
                self._unfinished -= is_ours
        self._modeling_is_complete |= not is_ours
        self._register_if_due()

    def _register_if_due(self) -> None:
        with self._lock:
            # an error below removes detectron2.modeling from sys.modules; its next import retries
            complete = self._modeling_is_complete and MODELING in sys.modules
            if self._registered or self._unfinished or not complete:
                return
            self._registered = True
        try:
            _import_registering_modules()
        except BaseException:
            self._registered = False
            raise
