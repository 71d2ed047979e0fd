"""The SampleCNN of ser_jax in PyTorch, as its users would write it, and its weights copied over: the peer of the timings.

Two forms of one net: `Conv1d` on [B, C, T], and 2-D convolutions of height 1 in channels-last memory. Biases are where
the paper has them, in the convolutions.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    """Net A or B of `config` (a SampleCNNConfig): f32[B, T] -> log-probabilities f32[B, K], feature layer f32[B, S, C].

    Args:
      channels_last: convolve in 2-D, channels last in memory, instead of in 1-D.
    """

    def __init__(self, config, num_classes, channels_last=False):
        super().__init__()
        self.channels_last = channels_last
        self.stem = self._conv(1, config.stem_filters, 3, stride=config.stem_stride)
        self.stem_norm = self._norm(config.stem_filters)
        widths = (config.stem_filters, *config.filters)
        self.blocks = nn.ModuleList(Block(self, *pair) for pair in zip(widths[:-1], widths[1:]))
        self.final = self._conv(widths[-1], config.final_filters, config.final_kernel)
        self.final_norm = self._norm(config.final_filters)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.final_filters, num_classes)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def _conv(self, c_in, c_out, kernel, stride=1):
        padding = kernel // 2 if stride == 1 else 0
        if self.channels_last:
            return nn.Conv2d(c_in, c_out, (1, kernel), (1, stride), (0, padding))
        return nn.Conv1d(c_in, c_out, kernel, stride, padding)

    def _norm(self, channels):
        return (nn.BatchNorm2d if self.channels_last else nn.BatchNorm1d)(channels, eps=1e-5, momentum=0.1)

    def pool(self, x):
        return functional.max_pool2d(x, (1, 3)) if self.channels_last else functional.max_pool1d(x, 3)

    def forward(self, x):
        x = x[:, None, None] if self.channels_last else x[:, None]
        x = functional.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x, self.pool)
        x = functional.relu(self.final_norm(self.final(x)))
        x = (x[:, :, 0] if self.channels_last else x).transpose(1, 2)
        probabilities = self.head(self.dropout(x)).softmax(-1)
        return torch.log(probabilities.mean(1) + 1e-7), x


class Block(nn.Module):
    def __init__(self, net, c_in, c_out):
        super().__init__()
        self.conv_1, self.norm_1 = net._conv(c_in, c_out, 3), net._norm(c_out)
        self.conv_2, self.norm_2 = net._conv(c_out, c_out, 3), net._norm(c_out)
        if c_in != c_out:
            self.conv_shortcut, self.norm_shortcut = net._conv(c_in, c_out, 1), net._norm(c_out)
        self.widens = c_in != c_out

    def forward(self, x, pool):
        h = functional.relu(self.norm_1(self.conv_1(x)))
        h = self.norm_2(self.conv_2(h))
        shortcut = self.norm_shortcut(self.conv_shortcut(x)) if self.widens else x
        return pool(functional.relu(h + shortcut))


def copy_weights(net, params, stats):
    """Fills a `Net` with the parameters and running statistics of a ser_jax SampleCNN (nested dicts of arrays)."""
    with torch.no_grad():
        _copy(net.stem, net.stem_norm, params["stem"]["kernel"], params["stem_norm"], stats["stem_norm"])
        for number, block in enumerate(net.blocks, 1):
            own, running = params[f"block_{number}"], stats[f"block_{number}"]
            for part in ("1", "2", *(["shortcut"] if block.widens else [])):
                _copy(getattr(block, f"conv_{part}"), getattr(block, f"norm_{part}"), own[f"conv_{part}"]["kernel"],
                      own[f"norm_{part}"], running[f"norm_{part}"])
        _copy(net.final, net.final_norm, params["final"]["kernel"], params["final_norm"], stats["final_norm"])
        net.head.weight.copy_(_tensor(params["head"]["kernel"]).T)
        net.head.bias.copy_(_tensor(params["head"]["bias"]))
    return net


def _copy(conv, norm, kernel, params, stats):
    kernel = _tensor(kernel)
    kernel = kernel[:, None] if kernel.ndim == 2 else kernel  # the stem of net A: [kernel, c_out]
    conv.weight.copy_(kernel.permute(2, 1, 0).reshape(conv.weight.shape))
    conv.bias.copy_(_tensor(params["input_bias"]))
    norm.weight.copy_(_tensor(params["scale"]))
    norm.bias.copy_(_tensor(params["bias"]))
    norm.running_mean.copy_(_tensor(stats["mean"]))
    norm.running_var.copy_(_tensor(stats["var"]))


def _tensor(array):
    return torch.from_numpy(np.array(array))


def inputs(speech):
    """int16[B, T] -> f32[B, T], full scale ±1, each row's mean removed."""
    x = speech.float() / 32768
    return x - x.mean(1, keepdim=True)


def augment(speech, shift, noise):
    """The augmentation of the gender task on full crops: int16[B, T] -> f32[B, T]; random shift filled with zeros, then
    uniform and normal noise."""
    x = speech.float() / 32768
    amount = torch.round((torch.rand(len(x)) * 2 - 1) * shift * x.shape[1]).long()
    source = torch.arange(x.shape[1]) - amount[:, None]
    inside = (source >= 0) & (source < x.shape[1])
    x = torch.where(inside, x.gather(1, source.clamp(0, x.shape[1] - 1)), 0)
    return x + (torch.rand_like(x) * 2 - 1) * noise + torch.randn_like(x) * noise
