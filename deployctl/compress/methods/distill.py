"""A student with fewer blocks: the model without some of its repeated blocks, trained to give the answers that the whole model gives.

Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531) with the student of DistilBERT (Sanh et al. 2019, arXiv
1910.01108): every other block of the teacher with the teacher's weights, then training on the teacher's outputs. The loss is the
squared error of the answers (the limit of high temperature in Hinton's section 2.1) and of the last block's output, each
relative to the teacher's size. It trains with AdamW, a linear warm-up and decay, and gradients clipped.

It learns from lines of the sample and from nothing else, none of which judges a variant. Needs the torch module, so an `onnx:`
source has no student.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deployctl.compress import blocks, graph, verify
from deployctl.compress.inputs import Arrays, Rows
from deployctl.compress.methods import fp32
from deployctl.compress.model import Model
from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact
from deployctl.core.project import DistillSpec
from deployctl.errors import DeployctlError, ModelError

BATCH = 16
_WATCHED_RATIO = 0.125  # of the rows to learn from: they choose among the student's states and are not trained on
_LOOKS = 20  # at the watched rows during a training
_WARM_UP_RATIO = 0.1  # of the steps
_CLIP_NORM = 1.0
_WEIGHT_DECAY = 0.01


def distill(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Make the student, train it, and export it as the teacher was exported.

    Raises:
        ModelError: no torch module, no repeated blocks, blocks that cannot be left out, or no training (`distill-impossible`);
            too few lines of sample (`sample-small`).
    """
    spec = settings.distill
    if settings.model is None or settings.model.module is None:
        raise _impossible("an onnx: source has only the graph", "give the torch module with model.source: python:MODULE:FUNCTION")
    stack = blocks.find(settings.model.module)
    if stack is None:
        raise _impossible("the module has no ModuleList or Sequential with two equal blocks or more", "use prune or low-rank for this model")
    if calibration.training is None:
        raise ModelError(
            "the sample is too small to train a student",
            why="the lines that judge a variant are not trained on, and too few others are left",
            hint=f"give model.sample {verify.MOST_JUDGED + 40} lines, better some thousand, or remove distill from compress.try",
            code="sample-small",
        )
    kept = blocks.chosen(stack.count, spec.keep_ratio)
    batched = graph.tensors(settings.path(artifact))[2]
    try:
        small = dataclasses.replace(settings.model, module=blocks.shortened(settings.model.module, stack, kept))
        with listening(settings.model, stack.path) as teacher, listening(small, stack.path) as student:
            done = train(student, teacher, calibration.training, spec, batch=BATCH if batched else 1, say=settings.say)
    except DeployctlError:
        raise
    except Exception as error:  # whatever the user's forward raises without the blocks, and whatever cannot be copied or trained
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        raise _impossible(
            f"the model does not run or train with {len(kept)} of its {stack.count} blocks: {why}", "use prune for this model"
        ) from error
    trace = Calibration(feeds=(calibration.training.feed([0, 0]),))
    made, _ = fp32.export(artifact, dataclasses.replace(settings, model=small), trace)
    return made, Report(summary=_words(stack, kept, done), calibrated=True, any_gate=True, notes=done.notes(spec))


def _impossible(why: str, hint: str) -> ModelError:
    return ModelError(
        "distill cannot make a student of this model", why=why, hint=f"{hint}, and remove distill from compress.try", code="distill-impossible"
    )


def _words(stack: blocks.Stack, kept: list[int], done: Training) -> str:
    names = ", ".join(str(p) for p in stack.places(kept))
    likeness = f"likeness on {done.watched} rows that it did not train on {done.before:.4f} -> {done.after:.4f}"
    return f"{len(kept)} of {stack.count} blocks of {stack.path or 'the module'} ({names}), {done.steps} steps on {done.rows} rows; {likeness}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a training did: steps done, rows trained on and watched, mean cosine of the watched rows' answers before and after."""

    steps: int
    rows: int
    watched: int
    before: float
    after: float

    def notes(self, spec: DistillSpec) -> tuple[str, ...]:
        """What a person should know about it."""
        if self.steps == spec.steps:
            return ()
        return (f"the time limit of {spec.limit_s:g} s ended the training after {self.steps} of {spec.steps} steps; another run may differ",)


class Answering:
    """A model whose answers and last block's output can be learned from."""

    def __init__(self, model: Model, path: str) -> None:
        self.model = model
        self.module = fp32.wrapped(model)
        self._hidden: Any = None
        self.hook = model.module.get_submodule(path)[-1].register_forward_hook(self._keep)

    def _keep(self, block: Any, given: Any, output: Any) -> None:
        self._hidden = output[0] if isinstance(output, tuple) else output

    def __call__(self, feed: Arrays) -> tuple[Any, Any]:
        """(answers [rows, values], last block's output or None)."""
        import torch

        tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
        out = self.module(tensors)
        values = [out] if isinstance(out, torch.Tensor) else [v for v in out if v.is_floating_point()]
        if self.model.pooling:
            values = [_pooled(values[0], tensors.get("attention_mask"), self.model)]
        answers = torch.cat([v.reshape(len(v), -1) for v in values], dim=1)
        hidden, mask = self._hidden, tensors.get("attention_mask")
        self._hidden = None
        if not isinstance(hidden, torch.Tensor):
            return answers, None
        if mask is not None and hidden.shape[:2] == mask.shape:
            hidden = hidden * mask[..., None].to(hidden.dtype)  # what stands at padding is read by nobody
        return answers, hidden


@contextlib.contextmanager
def listening(model: Model, path: str) -> Iterator[Answering]:
    """The model with its last block heard; afterwards it is as it was, so that it can be exported."""
    found = Answering(model, path)
    try:
        yield found
    finally:
        found.hook.remove()


def _pooled(hidden: Any, mask: Any, model: Model) -> Any:
    """Pooling as the graph does it."""
    import torch

    if model.pooling == "cls":
        vectors = hidden[:, 0]
    else:
        kept = mask[..., None].to(hidden.dtype)
        vectors = (hidden * kept).sum(dim=1) / kept.sum(dim=1).clamp_min(1e-9)
    return torch.nn.functional.normalize(vectors, dim=-1) if model.normalize else vectors


def train(
    student: Answering,
    teacher: Answering,
    rows: Rows,
    spec: DistillSpec,
    *,
    batch: int,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Training:
    """Train the student in place; it ends in the state that was best on the watched rows, which may be the first.

    The same rows, numbers and seed give the same weights on the same machine, unless the time limit ends it.

    Args:
        student: what learns.
        teacher: what it learns from; not changed.
        rows: to learn from; a part of them is only watched.
        spec: steps, rate, seed and time.
        batch: rows a step.
        say: hears how far it is.
        clock: seconds, monotonic.
    """
    import torch

    torch.manual_seed(spec.seed)
    rng = np.random.default_rng(spec.seed)
    order = [int(r) for r in rng.permutation(len(rows.sizes))]
    watched, trained = (sorted(part) for part in _parted(order))
    watch, learn = rows.only(watched), rows.only(trained)
    parameters = [p.requires_grad_(True) for p in student.model.module.parameters() if p.is_floating_point()]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_ratio(step, spec.steps))
    begun, steps, batches = clock(), 0, _batches(learn, batch, rng)
    wanted_of_watched = _alone(teacher, watch)
    best = before = likeness(_alone(student, watch), wanted_of_watched)
    state = copy.deepcopy(student.model.module.state_dict())
    every = max(1, spec.steps // _LOOKS)
    while steps < spec.steps and clock() - begun < spec.limit_s:
        feed = next(batches)
        with torch.no_grad():
            wanted = teacher(feed)
        optimizer.zero_grad()
        loss = _loss(student(feed), wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimizer.step()
        schedule.step()
        steps += 1
        if steps % every == 0 or steps == spec.steps:
            found = likeness(_alone(student, watch), wanted_of_watched)
            say(f"training the student: step {steps} of {spec.steps}, likeness {found:.4f} (was {before:.4f})")
            if found > best:
                best, state = found, copy.deepcopy(student.model.module.state_dict())
    student.model.module.load_state_dict(state)
    return Training(steps=steps, rows=len(trained), watched=len(watched), before=before, after=best)


def _parted(order: list[int]) -> tuple[list[int], list[int]]:
    count = max(1, round(len(order) * _WATCHED_RATIO))
    return order[:count], order[count:]


def rate_ratio(step: int, steps: int) -> float:
    """Share of the learning rate: up to 1 over the warm-up, then down to 0 at the end."""
    warm = max(1, round(steps * _WARM_UP_RATIO))
    return min((step + 1) / warm, max(steps - step, 0) / max(steps - warm, 1))


def _batches(rows: Rows, size: int, rng: np.random.Generator) -> Iterator[Arrays]:
    """Batches for ever, in a new order each time round; rows that cannot be padded meet only rows of their own size."""
    while True:
        parts = []
        for group in verify.groups(rows):
            order = sorted((int(r) for r in rng.permutation(group)), key=lambda r: rows.sizes[r])  # mates of like size: little padding
            parts += [order[s : s + size] for s in range(0, len(order), size)]
        for place in rng.permutation(len(parts)):
            yield rows.feed(parts[place])


def _loss(got: tuple[Any, Any], wanted: tuple[Any, Any]) -> Any:
    """Squared error of answers and of the last block's output, each relative to the wanted one's square."""
    loss = _relative(got[0], wanted[0])
    if got[1] is not None and wanted[1] is not None and got[1].shape == wanted[1].shape:
        loss = loss + _relative(got[1], wanted[1])
    return loss


def _relative(got: Any, wanted: Any) -> Any:
    return (got - wanted).square().sum() / wanted.square().sum().clamp_min(1e-12)


def _alone(model: Answering, rows: Rows) -> list[Any]:
    """Answers to each row by itself, as the gate's first case asks."""
    import torch

    with torch.no_grad():
        return [model(rows.feed([r]))[0].reshape(-1).double() for r in range(len(rows.sizes))]


def likeness(got: list[Any], wanted: list[Any]) -> float:
    """Mean cosine of answers, row by row."""
    import torch

    return float(np.mean([float(torch.nn.functional.cosine_similarity(g, w, dim=0)) for g, w in zip(got, wanted, strict=True)]))
