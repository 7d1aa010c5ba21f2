"""Any PyTorch model against any Keras model: align, explain every gap, transfer the weights.

`translator.audit(module, keras_model, example_inputs)` calls the function `audit` of `translator.audit.api`: the
package and the public function share their name, so the package is callable.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableAudit(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from translator.audit.api import audit

        return audit(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableAudit
