"""What ``torch.onnx.export`` writes today is read right: products as torch counts them, weights.

Networks are built from configurations with random weights; nothing is downloaded. The counter of
torch leaves attention and recurrent layers out on CPUs, so these are added by hand.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from autotune_rlm.networks import graph_facts, onnx_text  # noqa: E402

IMAGE, IDS = torch.zeros(1, 3, 64, 64), torch.zeros(2, 16, dtype=torch.long)
DYNAMIC = {"batch": 2, "seq": 16}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


class Only(torch.nn.Module):
    """One output of a network of transformers, so that nothing else is exported or counted."""

    def __init__(self, network, output):
        super().__init__()
        self.network, self.output = network.eval(), output

    def forward(self, x):
        return getattr(self.network(x), self.output)


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(16, 32, 2, batch_first=True)
        self.head = torch.nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


def resnet():
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[2, 1])
    return Only(transformers.ResNetForImageClassification(config), "logits"), IMAGE, 0


def vit():
    config = transformers.ViTConfig(**SMALL, intermediate_size=128, image_size=64)
    network = Only(transformers.ViTForImageClassification(config), "logits")
    return network, IMAGE, attention(batch=1, tokens=17)


def swin():
    config = transformers.SwinConfig(
        image_size=64, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4,
        attn_implementation="eager",
    )  # fmt: skip
    return Only(transformers.SwinForImageClassification(config), "logits"), IMAGE, 0


def bert():
    config = transformers.BertConfig(**SMALL, vocab_size=200, intermediate_size=128)
    network = Only(transformers.BertModel(config, add_pooling_layer=False), "last_hidden_state")
    return network, IDS, attention(batch=2, tokens=16)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=200, n_embd=64, n_layer=2, n_head=4, use_cache=False
    )
    return Only(transformers.GPT2LMHeadModel(config), "logits"), IDS, attention(batch=2, tokens=16)


def detector():
    config = transformers.YolosConfig(
        **SMALL, intermediate_size=128, image_size=[64, 64], num_detection_tokens=10
    )
    network = transformers.YolosForObjectDetection(config)
    network.class_labels_classifier = torch.nn.Identity()  # only the boxes are an output
    return Only(network, "pred_boxes"), IMAGE, attention(batch=1, tokens=16 + 1 + 10)


def lstm():
    return Recurrent(), torch.zeros(1, 12, 16), 12 * 4 * 32 * (16 + 32 + 32 + 32)


def attention(*, batch, tokens, width=64, layers=2):
    return 2 * batch * tokens * tokens * width * layers


def exported(build, folder):
    """The file, multiply-accumulates that torch counts, and parameters of the module."""
    torch.manual_seed(0)
    module, x, more = build()
    module = module.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    path = folder / f"{build.__name__}.onnx"
    text = x.dtype == torch.long
    shapes = ({0: "batch", 1: "seq"},) if text else None
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), str(path), verbose=False, dynamic_shapes=shapes)
    logging.disable(logging.NOTSET)
    parameters = sum(p.numel() for p in module.parameters())
    return path, counter.get_total_flops() // 2 + more, parameters, DYNAMIC if text else None


def check(build, folder):
    path, macs, parameters, dims = exported(build, folder)
    facts = graph_facts(path, dims=dims)
    assert facts.unknown == 0
    assert facts.macs == macs
    tables = 0.4 if build is swin else 0.12  # the exporter writes tables out and folds norms in
    assert facts.parameters == pytest.approx(parameters, rel=tables)
    assert onnx_text(path).startswith("onnx ")
    return path, facts, dims


@pytest.mark.parametrize(
    "build",
    [lstm, *(pytest.param(b, marks=pytest.mark.slow) for b in (vit, swin, gpt2, detector))],
    ids=lambda b: b.__name__,
)
def test_an_export_is_read_right(build, tmp_path):
    check(build, tmp_path)


def test_a_dynamic_export_and_its_4_bit_and_8_bit_versions_are_one_network(tmp_path):
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    path, facts, dims = check(bert, tmp_path)
    assert graph_facts(path, dims={"batch": 1, "seq": 32}).macs == 2 * (
        facts.macs // 2 - attention(batch=1, tokens=16)
    ) + attention(batch=1, tokens=32)
    quantiser = MatMulNBitsQuantizer(onnx.load(str(path)), block_size=32, is_symmetric=True)
    quantiser.process()
    logging.disable(logging.WARNING)
    quantize_dynamic(str(path), str(tmp_path / "8.onnx"))
    logging.disable(logging.NOTSET)
    for small in (quantiser.model.model, tmp_path / "8.onnx"):
        found = graph_facts(small, dims=dims)
        assert (found.macs, found.parameters, found.unknown) == (facts.macs, facts.parameters, 0)
        assert found.weight_bytes < 0.6 * facts.weight_bytes


@pytest.mark.parametrize("layout", ["QDQ", "QOperator"])
def test_a_statically_quantised_export_is_the_same_network(layout, tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Samples(CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": np.zeros((1, 3, 64, 64), np.float32)}]

        def get_next(self):
            return self.left.pop() if self.left else None

    path, facts, _ = check(resnet, tmp_path)
    logging.disable(logging.WARNING)
    quantize_static(
        str(path), str(tmp_path / "q.onnx"), Samples(), quant_format=QuantFormat[layout]
    )
    logging.disable(logging.NOTSET)
    found = graph_facts(tmp_path / "q.onnx")
    assert (found.macs, found.parameters, found.unknown) == (facts.macs, facts.parameters, 0)


@pytest.mark.slow
@pytest.mark.parametrize("build", [bert, resnet, gpt2], ids=lambda b: b.__name__)
def test_what_onnx_runtime_fuses_is_the_same_network(build, tmp_path):
    import onnxruntime

    path, facts, dims = check(build, tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options)
    found = graph_facts(tmp_path / "fused.onnx", dims=dims)
    assert any(op.startswith("com.microsoft.") for op in found.operators)
    assert (found.macs, found.unknown) == (facts.macs, 0)
