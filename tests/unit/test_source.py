"""SOURCE arguments: what they may be, and what is found out about them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.sources import SHAPE
from translator.capture.source import LoadedSource, load_source
from translator.errors import InputError
from translator.user_code import parse_spec

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


@pytest.mark.parametrize(
    ("config", "query", "shapes"),
    [
        ("T5Config", "", {"input_ids": (2, 16), "decoder_input_ids": (2, 8)}),
        ("T5Config", "?auto=T5EncoderModel", {"input_ids": (2, 16)}),
        ("WhisperConfig", "", {"input_features": (2, 8, 20), "decoder_input_ids": (2, 8)}),
    ],
)
def test_an_encoder_with_a_decoder_reads_two_inputs(
    config: str, query: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    import transformers

    small: dict[str, dict[str, object]] = {
        "T5Config": {"d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2},
        "WhisperConfig": {"num_mel_bins": 8, "max_source_positions": 10, "pad_token_id": 0, "bos_token_id": 1,
                          "eos_token_id": 2, "decoder_start_token_id": 1, "encoder_layers": 1, "decoder_layers": 1,
                          "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    }  # fmt: skip
    getattr(transformers, config)(vocab_size=50, d_model=16, **small[config]).save_pretrained(tmp_path)
    source = load_source(f"hf:{tmp_path}{query}")
    assert {name: tuple(x.shape) for name, x in source.example_kwargs.items()} == shapes


def test_a_model_of_text_without_a_vocabulary_asks_for_its_shape(tmp_path: Path) -> None:
    import transformers

    transformers.CanineConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_hash_buckets=64
    ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="what shape its input `input_ids` has isn't known"):
        load_source(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ("", (224, 224)),
        ('{"size": {"shortest_edge": 64}}', (64, 64)),
        ('{"size": 96}', (96, 96)),
        ('{"size": {"shortest_edge": 64}, "crop_size": {"height": 48, "width": 32}}', (48, 32)),
        ('{"size": [48, 32]}', (48, 32)),
        ('{"size": [64]}', (224, 224)),
        ('{"size": {"longest_edge": 1333}}', (224, 224)),
        ("[64]", (224, 224)),
        ("{", (224, 224)),
    ],
)
def test_images_are_as_large_as_the_processor_beside_the_model_makes_them(
    processor: str, size: tuple[int, int], tmp_path: Path
) -> None:
    import transformers

    transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_channels=1).save_pretrained(tmp_path)
    if processor:
        (tmp_path / "preprocessor_config.json").write_text(processor)
    for source in (f"hf:{tmp_path}", f"hf:{tmp_path}/config.json"):
        assert load_source(source).example_kwargs["pixel_values"].shape == (2, 1, *size)


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
