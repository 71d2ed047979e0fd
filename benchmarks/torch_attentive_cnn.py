"""The attentive CNN of ser_jax in PyTorch and its training loop, with weights copied over: the peer of the timings.

Three forms of one net: `Conv2d` over an image of one channel, which is how the papers write it; `Conv1d` over the bands
as channels; and `unfold`, a view of overlapping windows times a matrix, pooled in channels-last memory, the fastest
found.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FORMS = ("Conv2d", "Conv1d", "unfold")


class Net(nn.Module):
    """The net of `net` (an AttentiveNet): f32[B, T, D], f32[B, V] -> logits of emotion, arousal and valence in a
    row."""

    def __init__(self, net, form):
        super().__init__()
        config, bands = net.config, net.bands
        self.config, self.form, self.windows = config, form, net.windows
        self.sizes = [net.classes, 3, 3]
        if form == "Conv2d":
            self.conv = nn.Conv2d(1, config.filters, (config.kernel, bands), (config.stride, 1))
        elif form == "Conv1d":
            self.conv = nn.Conv1d(bands, config.filters, config.kernel, config.stride)
        else:
            self.conv = nn.Linear(bands * config.kernel, config.filters)
        self.attention = nn.Parameter(torch.empty(config.filters))
        self.heads = nn.Linear(config.filters + net.values, sum(self.sizes))

    def forward(self, x, vector):
        pool = self.config.pool
        if self.form == "Conv2d":
            pooled = functional.max_pool2d(functional.relu(self.conv(x[:, None])), (pool, 1)).squeeze(-1)
        elif self.form == "Conv1d":
            pooled = functional.max_pool1d(functional.relu(self.conv(x.transpose(1, 2).contiguous())), pool)
        else:
            size, step = self.config.kernel * x.shape[2], self.config.stride * x.shape[2]
            patches = x.reshape(len(x), -1).unfold(1, size, step)[:, : self.windows * pool]
            responses = self.conv(patches.reshape(-1, size)).view(len(x), -1, 1, self.config.filters)
            # A permuted view of this shape is channels-last memory to PyTorch. ReLU may follow the maximum.
            pooled = functional.relu(functional.max_pool2d(responses.permute(0, 3, 1, 2), (pool, 1)).squeeze(-1))
        attention = torch.softmax(torch.einsum("bcs,c->bs", pooled, self.attention), 1)
        summed = torch.einsum("bcs,bs->bc", pooled, attention)
        dropped = functional.dropout(torch.cat([summed, vector], 1), self.config.dropout, self.training)
        return self.heads(dropped).split(self.sizes, 1)


def loss(net, made, x, vector, labels):
    """Weighted sum of three cross-entropies; `made` is the AttentiveNet of the shares."""
    shares = (1 - made.alpha - made.beta, made.alpha, made.beta)
    logits = net(x, vector)
    return sum(share * functional.cross_entropy(each, label) for share, each, label in zip(shares, logits, labels))


def copy_weights(net, params):
    """Fills a `Net` with the parameters of an AttentiveNet (dict of arrays)."""
    kernel = _tensor(params["kernel"])  # [K, D, C]
    with torch.no_grad():
        if net.form == "Conv2d":
            net.conv.weight.copy_(kernel.permute(2, 0, 1)[:, None])
        elif net.form == "Conv1d":
            net.conv.weight.copy_(kernel.permute(2, 1, 0))
        else:
            net.conv.weight.copy_(kernel.reshape(-1, kernel.shape[2]).T)
        net.conv.bias.copy_(_tensor(params["bias"]))
        net.attention.copy_(_tensor(params["attention"]))
        net.heads.weight.copy_(_tensor(params["heads"]).T)
        net.heads.bias.copy_(_tensor(params["heads_bias"]))
    return net


def kernel_gradient(net):
    """The gradient of the convolution as [K · D, C]."""
    gradient = net.conv.weight.grad
    if net.form == "Conv2d":
        gradient = gradient[:, 0].permute(1, 2, 0)
    elif net.form == "Conv1d":
        gradient = gradient.permute(2, 1, 0)
    else:
        gradient = gradient.T
    return gradient.reshape(-1, net.config.filters).numpy()


def tensors(data):
    """Rows as tensors: frames, whether they are valid (f32[N, T, 1]), vector, labels."""
    frames = torch.from_numpy(data["frames"])
    valid = (torch.arange(frames.shape[1]) < torch.from_numpy(data["count"])[:, None])[..., None].float()
    labels = [torch.from_numpy(data[name]).long() for name in ("emotion", "arousal", "valence")]
    return frames, valid, torch.from_numpy(data["vector"]), labels


def rows(examples, constants, index):
    """A batch, normalised: x, vector, labels."""
    frames, valid, vector, labels = examples
    x = (frames[index] - constants["frames_shift"]) * constants["frames_scale"] * valid[index]
    return x, vector[index], [label[index] for label in labels]


def train(made, data, replica, schedule, form, seed=0):
    """The training of `heads.replicas` for one replica: epochs of shuffled batches, the best epoch by dev UAR kept,
    test rows predicted with it. Returns the logits.
    """
    torch.manual_seed(seed)
    examples = tensors(data)
    constants = {name: torch.from_numpy(values) for name, values in replica.constants.items()}
    net, size = Net(made, form), schedule.batch_size
    for weight in (net.conv.weight, net.heads.weight):
        nn.init.xavier_uniform_(weight)
    nn.init.uniform_(net.attention, -0.1, 0.1)
    optimiser = torch.optim.Adam(net.parameters(), lr=made.learning_rate, fused=True)
    parts = [torch.from_numpy(np.asarray(part)) for part in (replica.train, replica.dev, replica.test)]
    best, kept = -1.0, None
    for _ in range(schedule.epochs):
        net.train()
        for index in parts[0][torch.randperm(len(parts[0]))].split(size):
            x, vector, labels = rows(examples, constants, index)
            optimiser.zero_grad()
            loss(net, made, x, vector, labels).backward()
            optimiser.step()
        right = predict(net, examples, constants, parts[1], size).argmax(1) == examples[3][0][parts[1]]
        truth = examples[3][0][parts[1]]
        uar = torch.stack([right[truth == label].float().mean() for label in truth.unique()]).mean().item()
        if uar > best:
            best, kept = uar, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(kept)
    return predict(net, examples, constants, parts[2], size).numpy()


def predict(net, examples, constants, index, size):
    """Logits of emotion of some rows."""
    net.eval()
    with torch.inference_mode():
        made = [net(*rows(examples, constants, some)[:2])[0] for some in index.split(size)]
    return torch.cat(made)


def _tensor(array):
    return torch.from_numpy(np.array(array))
