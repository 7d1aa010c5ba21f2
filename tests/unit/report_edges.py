"""Reports at the edges: numbers that are none, nothing at all, nothing wrong, names that try to break out."""

from __future__ import annotations

import math
from dataclasses import replace

from translator.verdict import (
    Artifact,
    Balance,
    Check,
    Difference,
    Effect,
    Gap,
    LayerRow,
    Numerics,
    Report,
)


def not_finite() -> Report:
    """DIFFERENT: NaN in one layer, infinity in the next, one layer never compared, a file that does not load."""
    rows = (
        LayerRow(
            torch="stem",
            keras="stem",
            type="Conv2d",
            shape=(None, 7, 7, 4),
            params_torch=36,
            params_keras=36,
            error_f32=2e-7,
            error_f64=1e-16,
            chain_f32=2e-7,
            chain_f64=1e-16,
        ),
        LayerRow(
            torch="norm",
            keras="norm",
            type="BatchNorm2d",
            shape=(None, 7, 7, 4),
            params_torch=8,
            params_keras=16,
            error_f32=math.nan,
            error_f64=math.nan,
            chain_f32=math.nan,
            chain_f64=math.nan,
            depth=1,
            ok=False,
            note="moving_variance is negative",
        ),
        LayerRow(
            torch="head",
            keras="",
            type="Linear",
            shape=(None, 2),
            params_torch=10,
            params_keras=0,
            error_f32=math.inf,
            chain_f64=math.inf,
            depth=2,
            ok=False,
        ),
    )
    return Report(
        title="",
        torch_name="Small",
        keras_name="small",
        balance=Balance(
            torch_total=54,
            torch_trainable=46,
            torch_buffers=9,
            keras_total=52,
            keras_trainable=44,
            keras_non_trainable=8,
            gaps=(Gap(reason="head missing in Keras", count=-10, layers=("head",)),),
        ),
        checks=(Check(name="layers alone", ok=True, subjects=0), Check(name="ledger", ok=False, subjects=3)),
        layers=rows,
        numerics={"float32": Numerics(max_abs=math.nan, max_rel=math.nan)},
        artifact=Artifact(
            path="small.keras",
            sha256="",
            reloaded=False,
            lambda_layers=1,
            custom_layers=0,
            transposes=2,
            error="Lambda layers need code: safe mode refuses the file",
        ),
        seed=7,
        lost=("Stochastic depth of stem: its rate is not in the file",),
        notes=("The batch is fixed at 1 by a reshape in head",),
    )


def empty() -> Report:
    """DIFFERENT: nothing was looked at, which proves nothing."""
    balance = Balance(
        torch_total=0, torch_trainable=0, torch_buffers=0, keras_total=0, keras_trainable=0, keras_non_trainable=0
    )
    return Report(title="", torch_name="", keras_name="", balance=balance, checks=())


def equal() -> Report:
    """EQUAL: a pair without a gap or a difference."""
    row = LayerRow(
        torch="0",
        keras="dense",
        type="Linear",
        type_keras="Dense",
        shape=(None, 4),
        params_torch=12,
        params_keras=12,
        error_f32=1e-7,
        error_f64=0.0,
        chain_f32=1e-7,
        chain_f64=0.0,
    )
    return Report(
        title="translator audit mlp.py:torch_mlp mlp.py:keras_mlp",
        torch_name="Sequential",
        keras_name="sequential",
        balance=Balance(
            torch_total=12,
            torch_trainable=12,
            torch_buffers=0,
            torch_statistics=0,
            keras_total=12,
            keras_trainable=12,
            keras_non_trainable=0,
        ),
        checks=(Check(name="layers alone", ok=True, subjects=1),),
        layers=(row,),
        numerics={"float64": Numerics(max_abs=0.0, max_rel=0.0, limit=1e-9)},
    )


def hostile() -> Report:
    """Names that try to be HTML, Markdown, XML, terminal codes and CSV."""
    nasty = "<script>alert(1)</script>|`]]>&\"'\x1b[31m\u202e[bold]@octocat"
    base = equal()
    row = replace(base.layers[0], torch=nasty, keras="</script><img src=x onerror=alert(2)>", note=nasty, ok=False)
    difference = Difference(
        kind="epsilon", layers=(nasty,), torch=nasty, keras=nasty, effect=Effect.INFERENCE, fix=nasty, detail=nasty
    )
    return replace(base, title=nasty, torch_name=nasty, layers=(row,), differences=(difference,), first_wrong=nasty)
