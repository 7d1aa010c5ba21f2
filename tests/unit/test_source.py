"""SOURCE and KERAS arguments: what they may be, what is found out about them, and every way they can be wrong."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from translator.capture.source import LoadedSource, check_finite, load_source
from translator.errors import InputError, UnsupportedError
from translator.user_code import make, parse_spec

NETWORK = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, width: int = 4, kind: str = "plain") -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3)
            self.bn = nn.BatchNorm2d(width)
            self.kind = kind

        def forward(self, x):
            return self.bn(self.conv(x))

    def build(width=4):
        return Net(width)

    model = Net(6)
    number = 3
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


@pytest.fixture
def network(write) -> str:
    return write(NETWORK)


SHAPE = [(2, 3, 8, 8)]


def refusal(spec: str, kind: type[InputError] = InputError, **settings) -> str:
    with pytest.raises(kind) as caught:
        load_source(spec, **settings)
    assert caught.value.exit_status == 2
    return str(caught.value)


# What a source may be


@pytest.mark.parametrize(
    ("right", "width"),
    [("Net", 4), ("build", 4), ("model", 6), ("build?width=5", 5), ("Net?width=7&kind=odd", 7), ("Net?", 4)],
)
def test_a_file_may_offer_a_class_a_function_or_a_model(network: str, right: str, width: int) -> None:
    source = load_source(f"{network}:{right}", input_shapes=SHAPE)
    assert source.module.conv.out_channels == width
    assert not source.module.training
    assert source.name == right.partition("?")[0]
    assert [tuple(x.shape) for x in source.example_inputs] == SHAPE


def test_a_package_module_may_offer_a_factory() -> None:
    source = load_source("models.cifar_resnet:resnet", input_shapes=[(2, 3, 32, 32)])
    assert sum(p.numel() for p in source.module.parameters()) == 195_738


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("f.py:g", {}),
        ("f.py:g?a=1&b=2.5&c=[2, 2]&d=None&e=True", {"a": 1, "b": 2.5, "c": [2, 2], "d": None, "e": True}),
        ("f.py:g?name=resnet&quoted='7'&path=a/b:c", {"name": "resnet", "quoted": "7", "path": "a/b:c"}),
        ("a/b c/f.py:g.h?x=(1,)", {"x": (1,)}),
    ],
)
def test_arguments_are_literals_or_else_strings(text: str, want: dict) -> None:
    spec = parse_spec(text)
    assert spec.arguments == want
    assert spec.is_python_file
    assert spec.right in ("g", "g.h")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (2, 3, 224, 224)),
        ("inception_v3?init_weights=False", (2, 3, 299, 299)),
        ("vit_b_32?image_size=64", (2, 3, 64, 64)),
        ("r3d_18?num_classes=2", (2, 3, 16, 112, 112)),
        ("lraspp_mobilenet_v3_large", (2, 3, 224, 224)),
    ],
)
def test_torchvision_says_the_input_size_itself(name: str, shape: tuple[int, ...]) -> None:
    source = load_source(f"torchvision:{name}")
    assert [tuple(x.shape) for x in source.example_inputs] == [shape]


def test_optical_flow_takes_two_images() -> None:
    source = load_source("torchvision:raft_small")
    assert [tuple(x.shape) for x in source.example_inputs] == [(2, 3, 128, 128)] * 2


def test_timm_says_the_input_size_itself() -> None:
    shapes = {
        "timm:lcnet_035": (2, 3, 224, 224),
        "timm:vit_tiny_patch16_224?img_size=64&depth=1": (2, 3, 64, 64),
        "timm:test_resnet?in_chans=1": (2, 1, 160, 160),
    }
    for spec, shape in shapes.items():
        assert tuple(load_source(spec).example_inputs[0].shape) == shape, spec


def test_transformers_are_read_from_a_local_folder(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    source = load_source(f"hf:{tmp_path / 'bert'}")
    assert source.name == "bert"
    assert source.example_kwargs["input_ids"].shape == (2, 16)
    assert int(source.example_kwargs["input_ids"].max()) < 50
    assert not torch.equal(
        *(load_source(f"hf:{tmp_path / 'bert/config.json'}", seed=s).module.pooler.dense.weight for s in (0, 1))
    )


# Example inputs


def test_the_model_or_its_file_may_offer_example_inputs(write) -> None:
    text = """
        import torch
        from torch import nn

        class Two(nn.Module):
            def forward(self, a, b, scale=None):
                return a + b if scale is None else (a + b) * scale

        class Own(Two):
            def example_inputs(self):
                return (torch.ones(3, 2), torch.zeros(3, 2)), {"scale": torch.full((3, 2), 2.0)}

        def example_inputs():
            return torch.ones(2, 5), torch.ones(2, 5)
    """
    path = write(text)
    own, file = load_source(f"{path}:Own"), load_source(f"{path}:Two")
    assert [tuple(x.shape) for x in own.example_inputs] == [(3, 2), (3, 2)]
    assert own.example_kwargs["scale"].tolist() == [[2.0, 2.0]] * 3
    assert [tuple(x.shape) for x in file.example_inputs] == [(2, 5), (2, 5)]


def test_a_batch_of_one_becomes_two_and_is_said(network: str) -> None:
    source = load_source(f"{network}:Net", input_shapes=[(1, 3, 8, 8)])
    assert source.example_inputs[0].shape == (2, 3, 8, 8)
    assert "the batch of the example is 2, not 1" in source.notes[0]


def test_an_offered_batch_of_one_becomes_two_different_examples(write) -> None:
    path = write("""
        import torch
        from torch import nn
        class Net(nn.Embedding):
            def example_inputs(self):
                return torch.tensor([[0, 1, 2, 3]])
        def build():
            return Net(4, 2)
    """)
    assert load_source(f"{path}:build").example_inputs[0].tolist() == [[0, 1, 2, 3], [3, 0, 1, 2]]


def test_a_model_that_only_takes_a_batch_of_one_keeps_it(write) -> None:
    path = write("""
        from torch import nn
        class Net(nn.Linear):
            def forward(self, x):
                return super().forward(x.reshape(4))
        def build():
            return Net(4, 2)
    """)
    source = load_source(f"{path}:build", input_shapes=[(1, 4)])
    assert source.example_inputs[0].shape == (1, 4)
    assert source.notes == ("the model runs with a batch of 1 only",)


def test_integers_are_drawn_below_the_tables_they_index(write) -> None:
    path = write("""
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.big, self.small = nn.Embedding(100, 2), nn.Embedding(3, 2)
            def forward(self, x, flag):
                return self.big(x) + flag[..., None]
        class Small(Net):
            def forward(self, x, flag):
                return self.small(x) + flag[..., None]
    """)
    dtypes = {"input_shapes": [(2, 50), (2, 50)], "input_dtypes": ["int64", "bool"]}
    assert 50 < int(load_source(f"{path}:Net", **dtypes).example_inputs[0].max()) < 100
    small = load_source(f"{path}:Small", **dtypes)
    assert small.example_inputs[0].unique().tolist() == [0, 1, 2]
    assert small.example_inputs[1].dtype is torch.bool


def test_the_same_seed_gives_the_same_weights_and_inputs_and_touches_no_global_state(network: str) -> None:
    def numbers(source: LoadedSource) -> list[float]:
        return [source.module.conv.weight.sum().item(), source.example_inputs[0].sum().item()]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = numbers(load_source(f"{network}:Net", input_shapes=SHAPE, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert numbers(load_source(f"{network}:Net", input_shapes=SHAPE, seed=1)) == first
    other = numbers(load_source(f"{network}:Net", input_shapes=SHAPE, seed=2))
    assert all(a != b for a, b in zip(other, first, strict=True))


# What is taken off, and said


def test_wrappers_are_taken_off(write) -> None:
    path = write("""
        import torch
        from torch import nn
        def parallel():
            return nn.DataParallel(nn.Linear(2, 3))
        def compiled():
            return torch.compile(nn.Linear(2, 3))
    """)
    for factory, kind in (("parallel", "DataParallel"), ("compiled", "OptimizedModule")):
        source = load_source(f"{path}:{factory}", input_shapes=[(2, 2)])
        assert type(source.module) is nn.Linear
        assert source.notes == (f"taken out of its {kind}",)


def test_a_half_precision_model_is_widened_exactly(write) -> None:
    path = write("""
        import torch
        from torch import nn
        def build():
            torch.manual_seed(3)
            return nn.Linear(2, 3).bfloat16()
        def example_inputs():
            return torch.ones(2, 2, dtype=torch.bfloat16)
    """)
    source = load_source(f"{path}:build", weights=None)
    assert source.module.weight.dtype is torch.float32
    assert source.example_inputs[0].dtype is torch.float32
    assert "widened to float32, exactly" in source.notes[0]
    assert torch.equal(source.module.weight, source.module.weight.bfloat16().float())


def test_a_lazy_model_gets_its_weights_by_its_first_run(write, tmp_path: Path) -> None:
    path = write("from torch import nn\ndef build():\n    return nn.LazyLinear(3)\n")
    torch.save({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, tmp_path / "a.pt")
    source = load_source(f"{path}:build", input_shapes=[(2, 4)], weights=tmp_path / "a.pt")
    assert source.module.weight.tolist() == [[1.0] * 4] * 3


# Files of users


def test_a_file_may_import_what_stands_beside_it_and_two_folders_do_not_mix(write) -> None:
    main = "from layers import WIDTH\nfrom torch import nn\ndef build():\n    return nn.Linear(WIDTH, 2)\n"
    specs = []
    for folder, width in (("a", 3), ("b", 5)):
        write(f"WIDTH = {width}\n", f"{folder}/layers.py")
        specs.append((write(main, f"{folder}/net.py"), width))
    before = list(sys.path)
    for path, width in (*specs, *specs):
        assert load_source(f"{path}:build", input_shapes=[(2, width)]).module.in_features == width
    assert sys.path == before
    assert "net" not in sys.modules
    sys.modules.pop("layers", None)


def test_a_file_that_was_edited_is_read_again(write) -> None:
    for width in (3, 4):
        path = write(f"from torch import nn\ndef build():\n    return nn.Linear({width}, 2)\n")
        assert load_source(f"{path}:build", input_shapes=[(2, width)]).module.in_features == width


# Refusals


def test_a_factory_that_raises_is_told_with_the_users_own_line(write) -> None:
    path = write("""
        from torch import nn
        def width():
            return nn.Linear(2, "three")
        def build():
            return width()
    """)
    message = refusal(f"{path}:build", input_shapes=SHAPE)
    assert message.startswith(f"{path}:build: the factory raised TypeError:")
    assert f"source:  {path}, line 4, in width" in message


def test_a_file_that_raises_on_import_is_told_with_its_line(write) -> None:
    path = write("import math\nmath.sqrt(-1)\n")
    message = refusal(f"{path}:build")
    assert "raised ValueError: " in message
    assert f"{path}, line 2, in <module>" in message
    assert f"{path}, line 1" in refusal(f"{write('def build(:')}:build")
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in refusal(f"{write('import no_such_thing')}:x")
    assert "raised SystemExit" in refusal(f"{write('import sys; sys.exit(3)')}:x")


@pytest.mark.parametrize(
    ("right", "message"),
    [
        ("Nett", "did you mean Net?"),
        ("bild", "did you mean build?"),
        ("zzz", "has no `zzz`"),
        ("number", "`number` is an int, not a factory"),
        ("model?width=3", "is a model already, it takes no arguments"),
        ("build?widht=3", "got an unexpected keyword argument 'widht'"),
        ("build?3", "`3` is not an argument"),
        ("build?width=3&width=4", "the argument `width` is given twice"),
        ("", "names no factory"),
    ],
)
def test_a_wrong_name_or_argument_is_told_with_what_there_is(network: str, right: str, message: str) -> None:
    assert message in refusal(f"{network}:{right}", input_shapes=SHAPE)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "returned None, not an nn.Module"),
        ("{'state_dict': 1, 'epoch': 2}", "returned a dict with the keys state_dict, epoch, not an nn.Module"),
        ("nn.Linear", "returned a type, not an nn.Module"),
        ("torch.ones(3)", "returned a Tensor, not an nn.Module"),
        ("nn.Linear(2, 2, device='meta')", "its weights are on the meta device"),
    ],
)
def test_what_a_factory_returned_instead_of_a_model_is_told(write, result: str, message: str) -> None:
    path = write(f"import torch\nfrom torch import nn\ndef build():\n    return {result}\n")
    assert message in refusal(f"{path}:build", input_shapes=[(2, 2)])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "not a source"),
        ("no/such/file.py:build", "no such file: no/such/file.py"),
        ("no.such.package:build", "there is no module `no`"),
        ("models.nothing_here:build", "there is no module `models.nothing_here`"),
        ("a b:c", "neither a file nor a module"),
        ("torchvision:resnet19", "did you mean resnet18"),
        ("torchvision:resnet18?depth=3", "building the model raised TypeError"),
        ("timm:resnet18dd", "did you mean resnet18d"),
        ("hf:/no/such/folder", "no such file: /no/such/folder/config.json"),
        ("weights.ckpt", "a checkpoint holds weights, not an architecture"),
        ("absent.onnx", "no such file"),
    ],
)
def test_what_is_no_source_is_refused_with_what_to_do(spec: str, message: str) -> None:
    assert message in refusal(spec)


def test_what_is_not_supported_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    assert "not supported as a source yet" in refusal(str(tmp_path / "a.onnx"), UnsupportedError)
    assert "take a list of images" in refusal("torchvision:ssdlite320_mobilenet_v3_large", UnsupportedError)


def test_a_saved_program_keeps_its_modules_and_its_example(network: str, tmp_path: Path) -> None:
    model = load_source(f"{network}:Net", input_shapes=SHAPE).module
    program = torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = load_source(str(tmp_path / "net.pt2"))
    assert loaded.name == "net"
    assert [tuple(x.shape) for x in loaded.example_inputs] == SHAPE
    assert {name for name, _ in loaded.module.named_children()} == {"conv", "bn"}
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.module(x), model(x))


def test_a_file_that_is_no_saved_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"not a program")
    assert "not a program that torch.export.load() reads" in refusal(str(tmp_path / "a.pt2"))


def test_an_unknown_input_shape_is_asked_for(network: str) -> None:
    assert "give --input-shape" in refusal(f"{network}:Net")


def test_a_wrong_input_shape_names_the_module_that_failed_and_its_line(network: str) -> None:
    message = refusal(f"{network}:Net", input_shapes=[(2, 4, 8, 8)])
    assert "can't be run on float32 (2, 4, 8, 8): RuntimeError" in message
    assert "module:  conv (Conv2d)" in message
    assert f"{network}, line 13, in forward" in message
    assert "missing 1 required positional argument" not in message


def test_a_wrong_number_of_inputs_or_types_is_told(network: str) -> None:
    message = refusal(f"{network}:Net", input_shapes=[(2, 3, 8, 8), (2, 3)])
    assert "module:  Net" in message
    assert "takes 2 positional arguments but 3 were given" in message
    assert "not a type of input" in refusal(f"{network}:Net", input_shapes=SHAPE, input_dtypes=["float12"])
    assert "2 times --input-dtype for 1 inputs" in refusal(
        f"{network}:Net", input_shapes=SHAPE, input_dtypes=["int64", "int64"]
    )


@pytest.mark.parametrize(
    ("tensor", "value", "refused"),
    [
        ("weight", float("nan"), True), ("weight", float("inf"), True), ("running_var", float("inf"), True),
        ("running_mean", float("nan"), True), ("mask", float("nan"), True), ("mask", float("-inf"), False),
    ],
)  # fmt: skip
def test_nan_and_infinity_in_weights_are_refused_by_name(tensor: str, value: float, *, refused: bool) -> None:
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Module())
    module[1].register_buffer("mask", torch.zeros(4))
    name = "1.mask" if tensor == "mask" else f"0.{tensor}"
    with torch.no_grad():
        module.state_dict()[name][1] = value
    if not refused:
        check_finite(module, "x")
        return
    with pytest.raises(InputError, match=rf"x: NaN or infinite values in {name} \(1 of 4\)"):
        check_finite(module, "x")


def test_nan_in_a_checkpoint_names_the_checkpoint(network: str, tmp_path: Path) -> None:
    state = load_source(f"{network}:Net", input_shapes=SHAPE).module.state_dict()
    state["conv.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "bad.pt")
    message = refusal(f"{network}:Net", input_shapes=SHAPE, weights=tmp_path / "bad.pt")
    assert f"{tmp_path / 'bad.pt'}: NaN or infinite values in conv.weight (1 of 108)" in message


# KERAS

KERAS_NETWORK = """
    import keras

    def build(units=3):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])

    def unbuilt():
        return keras.Sequential([keras.layers.Dense(3)])

    def wrong():
        return {"model": 1}

    def raises():
        raise ValueError("no luck")

    def nan():
        model = build()
        model.layers[0].bias.assign([0.0, float("nan"), 0.0])
        return model

    @keras.saving.register_keras_serializable("here")
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    def custom():
        return keras.Sequential([keras.Input((4,)), Mine()])

    def lambdas():
        return keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1)])
"""


def keras_refusal(spec: str) -> str:
    from translator.keras_source import load_keras

    with pytest.raises(InputError) as caught:
        load_keras(spec)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saving, with numpy 2.4
def test_keras_models_come_from_factories_and_files(write, tmp_path: Path) -> None:
    from translator.keras_source import load_keras

    path = write(KERAS_NETWORK)
    loaded = load_keras(f"{path}:build?units=5")
    assert (loaded.name, loaded.model.count_params()) == ("build", 25)
    loaded.model.save(tmp_path / "a.keras")
    assert load_keras(str(tmp_path / "a.keras")).model.count_params() == 25
    assert load_keras("keras.applications:MobileNetV2?weights=None&alpha=0.35&classes=3").model.output_shape == (
        None,
        3,
    )


def test_keras_models_that_cannot_be_used_are_refused_with_the_reason(write, tmp_path: Path) -> None:
    path = write(KERAS_NETWORK)
    assert "returned a dict with the keys model, not a keras.Model" in keras_refusal(f"{path}:wrong")
    assert "the factory raised ValueError: no luck" in keras_refusal(f"{path}:raises")
    assert "it was never built" in keras_refusal(f"{path}:unbuilt")
    assert "NaN or infinite values in sequential" in keras_refusal(f"{path}:nan")
    assert "no such file" in keras_refusal(str(tmp_path / "absent.keras"))
    assert "is a folder" in keras_refusal(str(tmp_path))
    for name in ("text.keras", "text.h5"):
        (tmp_path / name).write_text("this is no model")
        assert "not a Keras model file" in keras_refusal(str(tmp_path / name))
    (tmp_path / "zip.keras").write_bytes(b"PK\x03\x04 and no more")
    assert "can't be loaded" in keras_refusal(str(tmp_path / "zip.keras"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_files_that_need_code_are_refused(write, tmp_path: Path) -> None:
    import keras

    path = write(KERAS_NETWORK)
    for factory, reason in (("custom", "Mine"), ("lambdas", "Lambda")):
        file = tmp_path / f"{factory}.keras"
        make(parse_spec(f"{path}:{factory}"), "keras.Model").save(file)
        keras.saving.get_custom_objects().clear()
        message = keras_refusal(str(file))
        assert reason in message
        assert "give file.py:factory that builds the model" in message
    with_weights = tmp_path / "a.weights.h5"
    make(parse_spec(f"{path}:build"), "keras.Model").save_weights(with_weights)
    assert "holds weights only" in keras_refusal(str(with_weights))


def test_a_config_that_is_no_model_is_refused_not_crashed_on(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr(
            "config.json", json.dumps({"module": "os", "class_name": "system", "config": {"command": "x"}})
        )
        archive.writestr("metadata.json", "{}")
    assert "can't be loaded" in keras_refusal(str(tmp_path / "a.keras"))
