"""Published sizes on a GPU: throughput, memory and the loss reached, beside the CPU in float32.

For a stated number of steps each network learns the same batches twice from the same weights: on
the GPU in bfloat16, and on the CPU in float32. Agreement is the difference of the two's mean losses
over the last quarter of the steps, as a share of the loss. Before that, one batch is computed on
both in float32: outputs must agree to 1e-3 of their size, or the row is refused. Without a GPU the
first contender is the CPU in bfloat16, and the task says so; `--small` takes tiny sizes.
"""

import copy
import time

import numpy as np
import torch
from bench_fusion import LINES, make, memory
from reporter import main, row
from torch.utils._pytree import tree_map_only

from perturbcore.embeddings.cell_models.cells import CellTransformer, MaskedExpression
from perturbcore.models.decoders.backbones import preset as decoder_preset
from perturbcore.models.decoders.model import DecoderLearner
from perturbcore.models.fusion.network import preset
from perturbcore.models.fusion.sources import lay_out
from perturbcore.models.fusion.transformer import TransformerFusion
from perturbcore.score.model import Fold
from perturbcore.score.task import task_of

CLOSE = 1e-3


def fusion(small):
    """The simple fusion of log fold-changes at published size."""
    responses, embeddings = make(*((60, 200, 3) if small else (600, 2000, 10)))
    settings = preset("lfc_simple", **({"d_model": 40, "layers": 1} if small else {}))
    rows = np.ones(responses.n_obs, dtype=bool)
    obs = responses.obs[["perturbation", "cell_line"]]
    fold = Fold(0, task_of(responses), LINES, responses, responses)
    model = TransformerFusion(embeddings, settings)
    learner = model.build(fold, obs, lay_out(embeddings, obs, rows), rows)
    size = settings.batch
    return learner, lambda rng: torch.as_tensor(rng.integers(responses.n_obs, size=size)), size


def decoder(method, small):
    """A generative decoder with the published transformer."""
    n_latent, n_condition, size = (20, 16, 16) if small else (100, 256, 256)
    learner = DecoderLearner(decoder_preset("published", method), n_latent, n_condition, 100)
    mix = torch.randn(n_condition, n_latent) / n_condition**0.5

    def batch(rng):
        condition = torch.as_tensor(rng.normal(size=(size, n_condition)), dtype=torch.float32)
        source = torch.as_tensor(rng.normal(size=(size, n_latent)), dtype=torch.float32)
        return [source, source + condition @ mix, condition]

    return learner, batch, size


def cells(small):
    """The cell transformer that chapters train, on planted factors."""
    g, size = (60, 8) if small else (2000, 64)
    sizes = dict(dim=32, heads=4, layers=1, latents=16) if small else {}
    mean, sd = np.zeros((1, g)), np.ones((1, g))
    encoder = CellTransformer([f"g{i}" for i in range(g)], mean, sd, **sizes)
    learner, weights = MaskedExpression(encoder, 1e-3, 1000), torch.randn(10, g) * 0.3

    def batch(rng):
        factors = torch.as_tensor(rng.normal(size=(size, 10)), dtype=torch.float32)
        order = torch.as_tensor(rng.permutation(g))
        return {
            "values": factors @ weights,
            "line": torch.zeros(size, dtype=torch.long),
            "query": order[: min(g // 2, 128)],
            "visible": order[g // 2 :].sort().values,
        }

    return learner, batch, size


def trained(learner, batches, device, dtype):
    """Loss of each step, seconds of the steps but the first, peak memory (MiB)."""
    learner = copy.deepcopy(learner).to(device).train()
    optimizer, losses = learner.optimizer(), []
    for number, batch in enumerate(batches):
        batch = tree_map_only(torch.Tensor, lambda part: part.to(device), batch)
        torch.manual_seed(number)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = learner.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if number == 0:
            start = time.perf_counter()
    return np.array(losses), time.perf_counter() - start, memory(device)


def compare(title, made, steps, device):
    """Train on both sides and compare."""
    learner, make_batch, size = made
    rng = np.random.default_rng(0)
    batches = [make_batch(rng) for _ in range(steps)]
    same = [trained(learner, batches[:1], d, torch.float32)[0][0] for d in ("cpu", device)]
    if abs(same[0] - same[1]) > CLOSE * abs(same[0]):
        raise RuntimeError(f"{title}: first loss {same[0]} on the CPU, {same[1]} on {device}")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    fast, seconds, peak = trained(learner, batches, device, torch.bfloat16)
    slow, other, _ = trained(learner, batches, "cpu", torch.float32)
    last = slice(-max(steps // 4, 1), None)
    reached, whole = fast[last].mean(), slow[last].mean()
    where = torch.cuda.get_device_name() if device == "cuda" else "the CPU (no GPU was used)"
    rate = (steps - 1) * size / seconds
    task = (
        f"{title}, {steps} steps of {size} in bfloat16 on {where}: "
        f"{rate:,.0f} examples per second, loss {fast[0]:.3g} to {reached:.3g}"
    )
    return row(task, "CPU, float32", seconds, other, abs(reached - whole) / abs(whole),
               ours_peak_mb=peak)  # fmt: skip


def cases(options):
    """Yield the rows."""
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    steps = 2 if options.small else 60
    torch.manual_seed(0)
    yield compare("fusion transformer", fusion(options.small), steps, device)
    for method in ("diffusion", "flow", "bridge"):
        yield compare(f"decoder, {method}", decoder(method, options.small), steps, device)
    yield compare("cell transformer, pretraining", cells(options.small), steps, device)


if __name__ == "__main__":
    main(__doc__, cases)
