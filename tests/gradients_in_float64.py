"""Run by a test in a process of eight simulated devices: the gradient of a run's next step on 1, 2 and 8 of them.

In float64, because in float32 rounding decides now and then on which side of a ReLU or which of two maxima a gradient
goes on; one such flip in a small net is 0.1 to 1 % of a leaf, whatever the topology. Losses do not feel it.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import training

from ser_jax import config, sharding
from ser_jax.data import pipeline, splits
from ser_jax.network import Network


def main(workdir, step):
    experiment = config.load(workdir / "config.json")
    network, settings = Network(experiment), experiment.train
    corpora = pipeline.open_corpora(experiment.data.corpora)
    table = splits.assign(corpora, experiment.data, network.task)
    stream = pipeline.training_batches(corpora, table, network.task, experiment.data, settings.batch_size, step)
    batch = next(stream)
    stream.close()
    saved = training.saved_tree(workdir, step)["model"]
    saved = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), saved)

    def loss(params, stats, batch):
        return network.loss(params, stats, batch, jax.random.fold_in(jax.random.key(settings.seed), step))[0]

    found = {}
    for devices in (1, 2, 8):
        mesh = sharding.mesh(jax.devices()[:devices])
        gradient = jax.jit(jax.value_and_grad(loss), out_shardings=sharding.replicated(mesh))
        state = jax.device_put((saved["params"], saved["stats"]), sharding.replicated(mesh))
        value, tree = gradient(*state, sharding.put(batch, mesh))
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        assert all(leaf.dtype == np.float64 for _, leaf in leaves)
        found[devices] = {"loss": np.asarray(value)}
        found[devices] |= {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    worst = {devices: max(float(np.linalg.norm(found[devices][name] - leaf) / max(np.linalg.norm(leaf), 1e-30))
                          for name, leaf in found[1].items()) for devices in found}
    print(json.dumps({"leaves": len(found[1]), "loss": float(found[1]["loss"]), "worst": worst}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
