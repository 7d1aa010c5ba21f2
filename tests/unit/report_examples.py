"""Reports as the proofs really make them: built by hand, without a framework, the same each time."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.report_edges import empty, equal, hostile, not_finite
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

VERSIONS = {"translator": "0.1.0", "torch": "2.15.0", "keras": "3.15.0", "tensorflow": "2.21.0"}
TWINS = {
    "Conv2d": "Conv2D",
    "BatchNorm2d": "BatchNormalization",
    "ReLU": "ReLU",
    "AvgPool2d": "AveragePooling2D",
    "Linear": "Dense",
}


def cifar_modules() -> list[tuple[str, str, tuple[int | None, ...], int]]:
    """(path, class, shape in Keras' order, parameters) of each leaf call of the [2, 2, 2] network."""
    found: list[tuple[str, str, tuple[int | None, ...], int]] = []

    def conv_bn(conv: str, bn: str, inputs: int, filters: int, side: int) -> None:
        shape = (None, side, side, filters)
        found.append((conv, "Conv2d", shape, 9 * inputs * filters))
        found.append((bn, "BatchNorm2d", shape, 2 * filters))

    conv_bn("conv", "bn", 3, 16, 32)
    found.append(("relu", "ReLU", (None, 32, 32, 16), 0))
    inputs = 16
    for stage, (filters, side) in enumerate(((16, 32), (32, 16), (64, 8)), start=1):
        for block in range(2):
            path, relu = f"layer{stage}.{block}", (f"layer{stage}.{block}.relu", "ReLU", (None, side, side, filters), 0)
            conv_bn(f"{path}.conv1", f"{path}.bn1", inputs, filters, side)
            found.append(relu)
            conv_bn(f"{path}.conv2", f"{path}.bn2", filters, filters, side)
            if inputs != filters:
                conv_bn(f"{path}.downsample.0", f"{path}.downsample.1", inputs, filters, side)
            found.append(relu)
            inputs = filters
    found.append(("avg_pool", "AvgPool2d", (None, 1, 1, 64), 0))
    found.append(("fc", "Linear", (None, 10), 650))
    return found


def noise(i: int, scale: float) -> float:
    """A rounding error that looks like one, without a generator."""
    return round((1 + (i * 7919 % 97) / 25) * scale, 18)


def converted_rows() -> tuple[LayerRow, ...]:
    rows = []
    for i, (path, cls, shape, params) in enumerate(cifar_modules()):
        exact = cls == "ReLU"
        rows.append(
            LayerRow(
                torch=path,
                keras=path.replace(".", "_"),
                type=cls,
                type_keras=TWINS[cls],
                shape=shape,
                params_torch=params,
                params_keras=2 * params if cls == "BatchNorm2d" else params,
                error_f32=0.0 if exact else noise(i, 1.2e-7),
                error_f64=0.0 if exact else noise(i, 2.3e-16),
                chain_f32=noise(i, 1.1e-7) * (1 + i / 9),
                chain_f64=noise(i, 2.1e-16) * (1 + i / 9),
                depth=i,
            )
        )
    return tuple(rows)


def of_class(rows: tuple[LayerRow, ...], cls: str, *, keras: bool = False) -> tuple[str, ...]:
    return tuple(row.keras if keras else row.torch for row in rows if row.type == cls)


def converted() -> Report:
    """EXPLAINED: the CIFAR network as `translator convert` proves it."""
    rows = converted_rows()
    norms = of_class(rows, "BatchNorm2d")
    return Report(
        title="translator convert models/cifar_resnet.py:resnet",
        torch_name="ResNet",
        keras_name="functional",
        balance=Balance(
            torch_total=195_738,
            torch_trainable=195_738,
            torch_buffers=1_135,
            torch_statistics=1_120,
            keras_total=196_858,
            keras_trainable=195_738,
            keras_non_trainable=1_120,
            gaps=(
                Gap(
                    reason="BN moving statistics, counted by Keras",
                    count=1_120,
                    layers=norms,
                    note="buffers in PyTorch: no real difference",
                ),
            ),
        ),
        checks=(
            Check(name="structure", ok=True, subjects=45, detail="every module call has its twin, shapes equal"),
            Check(name="ledger", ok=True, subjects=122, detail="every tensor and every variable exactly once"),
            Check(name="layers alone", ok=True, subjects=306, detail="6 probes each, float32 and float64"),
            Check(name="whole model", ok=True, subjects=4, detail="batch 1, 2, 3 and 5"),
            Check(name="training flags", ok=True, subjects=77, detail="195,738 trainable on both sides"),
            Check(name="artifact", ok=True, subjects=3, detail="fresh process, safe mode"),
        ),
        differences=(
            Difference(
                kind="num-batches-tracked",
                layers=norms,
                torch="15 scalar buffers",
                keras="none",
                effect=Effect.NOTHING,
                detail="a counter that inference and training never read",
                allowed=True,
            ),
        ),
        layers=rows,
        numerics={
            "float32": Numerics(max_abs=1.3e-6, max_rel=4.7e-7),
            "float64": Numerics(max_abs=3.1e-15, max_rel=9.8e-16, limit=1e-9),
        },
        artifact=Artifact(
            path="out/cifar_resnet.keras",
            sha256="9f2b4c61d0aa7e1f3b5c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f809a1b2c3",
            reloaded=True,
            lambda_layers=0,
            custom_layers=0,
            transposes=0,
            max_rel=4.7e-7,
            size=1_034_567,
        ),
        timing={"capture": 3.91, "plan": 0.12, "emit": 0.84, "prove": 6.2, "reload": 7.05},
        seed=0,
        versions=VERSIONS,
    )


def hand_written_names() -> list[str]:
    """The Keras names of the hand-written network, in the order of PyTorch's calls."""
    numbers: dict[str, int] = {}
    names = []
    words = {"Conv2d": "conv2d", "BatchNorm2d": "batch_normalization", "ReLU": "activation"}
    for _, cls, _, _ in cifar_modules():
        word = words.get(cls, {"AvgPool2d": "average_pooling2d", "Linear": "dense"}.get(cls, ""))
        number = numbers.get(word, 0)
        numbers[word] = number + 1
        names.append(f"{word}_{number}" if number else word)
    return names


def audited_rows() -> tuple[LayerRow, ...]:
    rows = []
    for i, (row, name) in enumerate(zip(converted_rows(), hand_written_names(), strict=True)):
        filters = row.shape[-1] or 0
        strided = row.torch in STRIDED
        alone = {"BatchNorm2d": 4.9e-4 + i * 1e-6, "Linear": 0.83}.get(row.type, row.error_f64)
        alone = 1.37 if strided else alone
        wrong = alone is not None and alone > 1e-9
        rows.append(
            replace(
                row,
                keras=name,
                type_keras="Activation" if row.type == "ReLU" else row.type_keras,
                params_keras=row.params_keras + (filters if row.type == "Conv2d" else 0),
                error_f32=alone if wrong else row.error_f32,
                error_f64=alone,
                chain_f32=row.chain_f32 if i == 0 else 4.9e-4 * 1.09**i,
                chain_f64=row.chain_f64 if i == 0 else 4.9e-4 * 1.09**i,
                ok=not wrong,
                note={"BatchNorm2d": "epsilon 1e-05 | 0.001", "Linear": "softmax in Keras"}.get(row.type, "")
                or ('pads (1, 1) | "same" pads (0, 1)' if strided else ""),
            )
        )
    return tuple(rows)


STRIDED = ("layer2.0.conv1", "layer2.0.downsample.0", "layer3.0.conv1", "layer3.0.downsample.0")


def audited_differences(rows: tuple[LayerRow, ...]) -> tuple[Difference, ...]:
    convs, norms = of_class(rows, "Conv2d"), of_class(rows, "BatchNorm2d")
    return (
        Difference(
            kind="epsilon",
            layers=norms,
            torch="1e-05",
            keras="0.001",
            effect=Effect.INFERENCE,
            fix="BatchNormalization(epsilon=1e-5)",
        ),
        Difference(
            kind="padding",
            layers=STRIDED,
            torch="(1, 1), (1, 1)",
            keras='"same" = (0, 1), (0, 1)',
            effect=Effect.INFERENCE,
            fix='ZeroPadding2D(1), then padding="valid"',
        ),
        Difference(
            kind="head-activation",
            layers=("fc",),
            torch="logits",
            keras="softmax",
            effect=Effect.INFERENCE,
            fix="Dense(10), and from_logits=True in the loss",
        ),
        Difference(
            kind="conv-bias",
            layers=convs,
            torch="none",
            keras="trainable",
            effect=Effect.INFERENCE,
            fix="use_bias=False",
            detail="no change while they are zero",
        ),
        Difference(
            kind="momentum",
            layers=norms,
            torch="0.1, in Keras' terms 0.9",
            keras="0.99",
            effect=Effect.TRAINING,
            fix="BatchNormalization(momentum=0.9)",
        ),
        Difference(
            kind="initialiser",
            layers=(*convs, "fc"),
            torch="kaiming_uniform(√5)",
            keras="glorot_uniform",
            effect=Effect.TRAINING,
            fix='kernel_initializer=VarianceScaling(1/3, "fan_in", "uniform")',
        ),
        Difference(
            kind="num-batches-tracked",
            layers=norms,
            torch="15 scalar buffers",
            keras="none",
            effect=Effect.NOTHING,
            detail="a counter that inference and training never read",
        ),
    )


def audited() -> Report:
    """DIFFERENT: the network and its hand-written Keras version, with the seven differences."""
    rows = audited_rows()
    return Report(
        title="translator audit models/cifar_resnet.py:resnet models/cifar_resnet_keras.py:resnet",
        torch_name="ResNet",
        keras_name="functional",
        balance=Balance(
            torch_total=195_738,
            torch_trainable=195_738,
            torch_buffers=1_135,
            torch_statistics=1_120,
            keras_total=197_418,
            keras_trainable=196_298,
            keras_non_trainable=1_120,
            gaps=(
                Gap(reason="conv biases that only Keras has", count=560, layers=of_class(rows, "Conv2d", keras=True)),
                Gap(
                    reason="BN moving statistics, counted by Keras",
                    count=1_120,
                    layers=of_class(rows, "BatchNorm2d", keras=True),
                    note="buffers in PyTorch: no real difference",
                ),
            ),
        ),
        checks=(
            Check(name="alignment", ok=True, subjects=45, detail="every module call has a partner"),
            Check(name="ledger", ok=True, subjects=137, detail="closes: 195,738 + 560 + 1,120 = 197,418"),
            Check(name="layers alone", ok=False, subjects=45, detail="20 of 45 differ, first bn"),
            Check(name="whole model", ok=False, subjects=3, detail="relative 0.37 in float64"),
        ),
        differences=audited_differences(rows),
        layers=rows,
        numerics={
            "float32": Numerics(max_abs=1.84, max_rel=0.37),
            "float64": Numerics(max_abs=1.84, max_rel=0.37, limit=1e-9),
        },
        timing={"load": 7.3, "align": 0.21, "layers": 4.4},
        first_wrong="bn ↔ batch_normalization",
        seed=0,
        versions=VERSIONS,
    )


def deep(layers: int = 1_200) -> Report:
    """DIFFERENT: a very deep network, one wrong layer in the middle and all after it off along the chain."""
    rows = []
    wrong = layers // 2 + 3
    for i in range(layers):
        cls = ("Conv2d", "BatchNorm2d", "ReLU")[i % 3]
        params = {"Conv2d": 9 * 64 * 64, "BatchNorm2d": 128, "ReLU": 0}[cls]
        path = f"layer{1 + 3 * i // layers}.{i // 6}.{cls.lower()}{i % 6}"
        later = 4.9e-4 * (1 + (i - wrong) / 400)
        rows.append(
            LayerRow(
                torch=path,
                keras=path.replace(".", "_"),
                type=cls,
                type_keras=TWINS[cls],
                shape=(None, 8, 8, 64),
                params_torch=params,
                params_keras=2 * params if cls == "BatchNorm2d" else params,
                error_f32=0.0 if cls == "ReLU" else 3.1e-4 if i == wrong else noise(i, 1.2e-7),
                error_f64=0.0 if cls == "ReLU" else 3.1e-4 if i == wrong else noise(i, 2.3e-16),
                chain_f32=noise(i, 1.1e-7) * (1 + i / 9) if i < wrong else later,
                chain_f64=noise(i, 2.1e-16) * (1 + i / 9) if i < wrong else later,
                depth=i,
                ok=i != wrong,
                note="gamma and beta exchanged" if i == wrong else "",
            )
        )
    statistics = sum(r.params_torch for r in rows if r.type == "BatchNorm2d")
    total = sum(r.params_torch for r in rows)
    norms = tuple(r.torch for r in rows if r.type == "BatchNorm2d")
    return Report(
        title="translator convert models/cifar_resnet.py:resnet1202",
        torch_name="ResNet",
        keras_name="functional",
        balance=Balance(
            torch_total=total,
            torch_trainable=total,
            torch_buffers=statistics + len(norms),
            torch_statistics=statistics,
            keras_total=total + statistics,
            keras_trainable=total,
            keras_non_trainable=statistics,
            gaps=(Gap(reason="BN moving statistics, counted by Keras", count=statistics, layers=norms),),
        ),
        checks=(
            Check(name="structure", ok=True, subjects=layers, detail="every module call has its twin"),
            Check(name="layers alone", ok=False, subjects=layers, detail="1 of 1,200 differs"),
        ),
        layers=tuple(rows),
        numerics={"float64": Numerics(max_abs=0.02, max_rel=1.3e-3, limit=1e-9)},
        timing={"capture": 50.4, "prove": 131.0},
        versions=VERSIONS,
    )


EXAMPLES = {
    "converted": converted,
    "audited": audited,
    "deep": deep,
    "not_finite": not_finite,
    "empty": empty,
    "equal": equal,
    "hostile": hostile,
}
