"""Any report at all, for Hypothesis: what holds for these holds for what nobody thought of."""

from __future__ import annotations

from hypothesis import strategies as st

from translator.verdict import Artifact, Balance, Check, Difference, Effect, Gap, LayerRow, Numerics, Report

texts = st.text(max_size=12)
names = st.lists(texts, max_size=3).map(tuple)
counts = st.integers(0, 10**12)
errors = st.none() | st.floats(min_value=0) | st.just(float("nan"))
dims = st.lists(st.none() | st.integers(0, 4096), max_size=4).map(tuple)

gaps = st.builds(Gap, reason=texts, count=st.integers(-(10**9), 10**9), layers=names, note=texts)
balances = st.builds(
    Balance, torch_total=counts, torch_trainable=counts, torch_buffers=counts, keras_total=counts,
    keras_trainable=counts, keras_non_trainable=counts, gaps=st.lists(gaps, max_size=3).map(tuple),
    torch_statistics=st.none() | counts,
)  # fmt: skip
closed = balances.map(
    lambda b: Balance(torch_total=b.torch_total, torch_trainable=b.torch_trainable, torch_buffers=b.torch_buffers,
                      keras_total=b.torch_total + sum(g.count for g in b.gaps) + 10**10, keras_trainable=0,
                      keras_non_trainable=0, gaps=(*b.gaps, Gap(reason="rest", count=10**10, layers=())))
)  # fmt: skip
rows = st.builds(
    LayerRow, torch=texts, keras=texts, type=texts, shape=dims, params_torch=counts, params_keras=counts,
    error_f32=errors, error_f64=errors, chain_f32=errors, chain_f64=errors, depth=st.integers(0, 99), ok=st.booleans(),
    note=texts, type_keras=texts,
)  # fmt: skip
differences = st.builds(
    Difference, kind=texts, layers=names, torch=texts, keras=texts, effect=st.sampled_from(Effect), fix=texts,
    detail=texts, allowed=st.booleans(),
)  # fmt: skip
checks = st.builds(Check, name=texts, ok=st.booleans(), subjects=st.integers(0, 999), detail=texts)
numbers = st.floats(min_value=0) | st.just(float("nan"))
numerics = st.builds(Numerics, max_abs=numbers, max_rel=numbers, limit=st.none() | st.floats(0, 1))
artifacts = st.builds(
    Artifact, path=texts, sha256=texts, reloaded=st.booleans(), lambda_layers=counts, custom_layers=counts,
    transposes=counts, max_rel=errors, error=texts, size=st.none() | counts,
)  # fmt: skip
free = st.recursive(st.none() | st.booleans() | st.integers() | numbers | texts, st.lists, max_leaves=4)
reports = st.builds(
    Report,
    title=texts,
    torch_name=texts,
    keras_name=texts,
    balance=balances | closed,
    checks=st.lists(checks, max_size=3).map(tuple),
    differences=st.lists(differences, max_size=3).map(tuple),
    layers=st.lists(rows, max_size=5).map(tuple),
    numerics=st.dictionaries(st.sampled_from(["float32", "float64"]), numerics),
    artifact=st.none() | artifacts,
    timing=st.dictionaries(texts, st.floats(0, 1e5)),
    first_wrong=texts,
    seed=st.integers(0, 2**32),
    lost=names,
    notes=names,
    versions=st.dictionaries(texts, texts, max_size=2),
    extra=st.dictionaries(texts, free),
)
