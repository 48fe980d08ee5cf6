"""The training loop: the epochs of one phase, each followed by validation; it goes on after any stop."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrecords_schema.errors import RunError
from tfrecords_schema.storage import files
from trainer.config import TrainConfig
from trainer.model.decoder import Decoder
from trainer.training.checkpoints import Best, Checkpoints, Progress
from trainer.training.interruptions import Interruptions
from trainer.training.journal import Journal, Sample
from trainer.training.phases import SELF_CRITICAL, Phase
from trainer.training.screen import Screen
from trainer.training.update import make_update
from trainer.training.validation import Captioned, Validation, add, mean_figures

_FALLING = ("loss", "val_loss")  # figures that are better when smaller
_READ_EVERY_S = 0.5  # results of steps are fetched from the device this often, and looked at
_CURVE_EVERY_S = 5.0
_SAMPLES = 8  # validation images that are shown with their captions,
_ON_SCREEN = 2  # and how many of them on the screen


@dataclasses.dataclass
class Bench:
    """What all phases of a run work with."""

    config: TrainConfig
    strategy: tf.distribute.Strategy
    decoder: Decoder
    best: Best
    journal: Journal
    screen: Screen
    interruptions: Interruptions
    push: Callable[[], str]  # sends the job directory to where it is kept; gives what is to be told of that
    validation: Validation | None = None

    def monitor(self, phase: Phase) -> str:
        """The figure of an epoch's row that tells the best one of a phase."""
        if self.validation:
            return self.config.monitor
        return "reward" if phase.name == SELF_CRITICAL else "loss"


class PhaseRun:
    """One phase, from its beginning or from its latest checkpoint on."""

    def __init__(self, bench: Bench, phase: Phase, saved: Checkpoints, progress: Progress, last_epoch: int):
        self._bench, self._phase, self._saved, self._progress = bench, phase, saved, progress
        self._last_epoch = last_epoch
        self._skip_overflow = bench.config.mixed_precision == "float16"
        self._update = make_update(
            phase.learner,
            phase.optimizer,
            phase.objective,
            bench.strategy,
            phase.batches.dataset(0),
            seed=bench.config.seed,
            clip_norm=bench.config.clip_norm,
            jit_compile=phase.jit_compile,
            skip_overflow=self._skip_overflow,
        )
        self._monitor = bench.monitor(phase)
        self._since_curve: dict[str, tuple[float, float]] = {}  # sums since the last point of TensorBoard's curves
        self._curve_at = -math.inf

    def run(self) -> None:
        """Runs all epochs that are left, or as many as there are before `patience` runs out."""
        patience = self._bench.config.patience
        while self._progress.epoch < self._last_epoch and self._progress.without_better < patience:
            self._train()
            self._validate()
        if self._progress.epoch < self._last_epoch:
            self._bench.screen.say(f"no better {self._monitor} in {patience} validations (--patience): this phase ends")

    def _train(self) -> None:
        """The batches of the epoch that are left, with a checkpoint whenever one is due."""
        bench, progress, config = self._bench, self._progress, self._bench.config
        steps = self._phase.batches.steps(progress.epoch)
        title = f"epoch {progress.epoch + 1}/{self._last_epoch}"
        bench.screen.begin(title, progress.step, steps)
        batches = bench.strategy.experimental_distribute_dataset(
            self._phase.batches.dataset(progress.epoch, progress.step)
        )
        total_steps = max(1, steps * self._phase.epochs)
        unread: list[Any] = []
        begun = read_at = saved_at = time.monotonic()
        for batch in _timed(batches, progress):
            share = min(1.0, progress.steps / total_steps)
            unread.append(self._update(batch, tf.constant(progress.steps, tf.int64), tf.constant(share, tf.float32)))
            progress.step += 1
            progress.steps += 1
            now = time.monotonic()
            due = now - saved_at > 60 * config.checkpoint_minutes
            due |= bool(config.checkpoint_steps) and progress.steps % config.checkpoint_steps == 0
            if due or bench.interruptions.came or now - read_at > _READ_EVERY_S:
                self._read(unread)
                progress.seconds += now - begun
                begun = read_at = now
                bench.screen.update(progress.step, self._figures())
            if due or bench.interruptions.came:
                self._save()
                saved_at = time.monotonic()
                bench.interruptions.check()
        self._read(unread, is_last=True)
        progress.seconds += time.monotonic() - begun
        bench.screen.update(progress.step, self._figures())
        self._save()  # validation takes a while, and who is stopped in it need not train this epoch again

    def _figures(self) -> dict[str, float]:
        """What the screen shows of an epoch that is not over yet."""
        progress = self._progress
        shown = {name: value for name, value in mean_figures(progress.sums).items() if name in ("loss", "reward")}
        return {**shown, "tokens/s": progress.tokens / max(progress.seconds, 1e-9)}

    def _read(self, unread: list[Any], is_last: bool = False) -> None:
        """Adds up what steps have reported; waits for the last of them. What was left out counts as that alone."""
        progress = self._progress
        for reported, tokens, norm in unread:
            progress.tokens += float(tokens)
            if self._skip_overflow and not math.isfinite(norm):
                progress.left_out += 1
                continue
            add(self._since_curve, {**reported, "gradient_norm": (norm, 1.0)})
            add(progress.sums, reported)
        unread.clear()
        if is_last and progress.left_out == progress.step > 0:
            raise RunError(
                f"epoch {progress.epoch + 1} of {self._phase.name}: the gradient was too large for float16 in all "
                f"{progress.step:,} steps; try --mixed_precision bfloat16 in another --job_dir, or --overwrite"
            )
        if not all(math.isfinite(total) for total, _ in [*progress.sums.values(), *self._since_curve.values()]):
            raise RunError(
                f"step {progress.steps} of {self._phase.name}: the loss is no longer a finite number; "
                "earlier checkpoints are intact; try a smaller --learning_rate in another --job_dir, or --overwrite"
            )
        if self._since_curve and (is_last or time.monotonic() - self._curve_at > _CURVE_EVERY_S):
            curves = mean_figures(self._since_curve, "train/")
            self._bench.journal.scalars(progress.all_steps, {**curves, "train/learning_rate": self._learning_rate()})
            self._since_curve, self._curve_at = {}, time.monotonic()

    def _validate(self) -> None:
        """The end of an epoch: its row, the best weights, and what is left for people to look at."""
        bench, progress, config = self._bench, self._progress, self._bench.config
        row: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "phase": self._phase.name,
            **mean_figures(progress.sums),
            **({"left_out": progress.left_out} if progress.left_out else {}),
            "learning_rate": self._learning_rate(),
            "tokens_per_s": progress.tokens / max(progress.seconds, 1e-9),
            "waited": progress.waited_s / max(progress.seconds, 1e-9),
        }
        captioned: list[Captioned] = []
        if bench.validation:
            self._phase.before_validation(bench.interruptions.check)
            row |= mean_figures(bench.validation.losses(bench.interruptions.check), "val_")
            if (progress.epoch + 1) % config.metrics_every == 0 or progress.epoch + 1 == self._last_epoch:
                captioned = self._score(bench.validation, row)
        if self._monitor in row:
            self._judge(row)
        progress.history.append(row)
        bench.screen.close()
        bench.screen.say(line(row) + ("  best" if progress.best is row else ""))
        bench.journal.write_history(progress.history)
        figures = {f"epoch/{name}": value for name, value in row.items() if isinstance(value, float)}
        bench.journal.scalars(progress.all_steps, figures)
        samples = [Sample(c.id, c.uri, c.caption, c.references) for c in captioned[:_SAMPLES]]
        if samples:
            bench.journal.samples(progress.epoch + 1, samples)
            for sample in samples[:_ON_SCREEN]:
                bench.screen.say(str(sample))
        progress.next_epoch()
        self._save()
        bench.interruptions.check()

    def _score(self, validation: Validation, row: dict[str, Any]) -> list[Captioned]:
        """Adds to the row what the captions of the validation images are worth; returns these."""
        bench = self._bench
        bench.screen.waiting("scoring validation captions")
        scores, captioned = validation.scores(bench.interruptions.check)
        row |= {**scores.corpus, "comparable": scores.comparable}
        for note in scores.notes:
            bench.screen.say_once(f"note: {note}")
        if self._monitor not in row:
            raise RunError(
                f"--monitor {self._monitor}: cannot be measured here ({'; '.join(scores.notes)}); start again with "
                "another one and --overwrite"
            )
        return captioned

    def _judge(self, row: dict[str, Any]) -> None:
        """Keeps the weights of the best epoch so far, and counts the validations since then."""
        progress = self._progress
        if math.isfinite(row[self._monitor]) and (not progress.best or self._worth(row) > self._worth(progress.best)):
            self._bench.best.save(progress.all_steps)
            progress.best, progress.without_better = row, 0
        else:
            progress.without_better += 1

    def _worth(self, row: dict[str, Any]) -> tuple[float, float]:
        """What epochs are ranked by: the monitored figure; of equal ones (no caption has any CIDEr yet) the loss."""
        return (-1 if self._monitor in _FALLING else 1) * row[self._monitor], -row.get("val_loss", 0.0)

    def _save(self) -> None:
        try:
            self._saved.save()
        except (tf.errors.OpError, OSError) as error:
            raise RunError(
                f"the checkpoint of step {self._progress.steps} could not be written ({files.reason(error)}); "
                "earlier ones are intact; run the same command to continue from the latest"
            ) from error
        if told := self._bench.push():
            self._bench.screen.say(told)

    def _learning_rate(self) -> float:
        """That of the last update: by the optimizer's count, which has no steps that were left out."""
        return float(self._phase.learning_rate(max(0, int(self._phase.optimizer.iterations.numpy()) - 1)))


def _timed(batches, progress: Progress):
    """The batches; the time that was spent waiting for them is added to `progress.waited_s`."""
    iterator = iter(batches)
    while True:
        begun = time.monotonic()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        progress.waited_s += time.monotonic() - begun
        yield batch


def line(row: dict[str, Any]) -> str:
    """An epoch in one line."""
    shown = {"loss": ".3f", "reward": ".3f", "greedy_reward": ".3f", "val_loss": ".3f", "val_perplexity": ".2f"}
    shown |= {"bleu_4": ".1f", "meteor": ".1f", "rouge_l": ".1f", "cider": ".1f"}
    shown |= {"left_out": ",.0f", "tokens_per_s": ",.0f"}
    figures = "  ".join(f"{name} {row[name]:{form}}" for name, form in shown.items() if name in row)
    return f"epoch {row['epoch']:>3}  {figures}"
