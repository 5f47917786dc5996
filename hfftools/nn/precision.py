"""Choose between single precision and bfloat16 for training, by what the processor or GPU can do."""

import torch

from hfftools.log import UserError

SPELLINGS = ("auto", True, False)


def check_bf16(wanted: object, option: str) -> None:
    """Raise UserError unless `wanted`, the value of `option`, is auto, true or false."""
    if wanted not in SPELLINGS:
        raise UserError(f"{option}: '{wanted}' is not one of auto, true, false")


def use_bf16(wanted: object, device: torch.device, option: str) -> bool:
    """Return whether to train in bfloat16: as `wanted` says or, for `auto`, where `device` multiplies it natively.

    Raise UserError where `wanted` is true and the device cannot run bfloat16 at all: oneDNN, for instance, has no
    bfloat16 LSTM for a processor without AVX-512.
    """
    check_bf16(wanted, option)
    if wanted == "auto":
        return _native(device)
    if wanted and not _possible(device):
        raise UserError(f"{option}: {_name(device)} does not compute in bfloat16; set {option}=auto or {option}=false")
    return bool(wanted)


def _native(device: torch.device) -> bool:
    """Return whether bfloat16 products are done in hardware, which makes them faster than those of single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(
        capabilities.get(key) for key in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
    )


def _possible(device: torch.device) -> bool:
    """Return whether bfloat16 works, even if only by conversion to single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported() or _native(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor"
