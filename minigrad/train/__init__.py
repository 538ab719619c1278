"""Training: recipes, the loop, checkpoints and curves; ``minigrad train`` runs ``train``."""

from minigrad.errors import MissingPackageError
from minigrad.train.checkpoint import load_checkpoint, save_checkpoint
from minigrad.train.curves import curves
from minigrad.train.loop import Epoch, Trainer
from minigrad.train.recipes import DATASETS, RECIPES, Recipe, load_images, recipe
from minigrad.train.run import Trained, train

__all__ = [
    "DATASETS", "RECIPES", "Epoch", "MissingPackageError", "Recipe", "Trained", "Trainer", "curves",
    "load_checkpoint", "load_images", "recipe", "save_checkpoint", "train",
]  # fmt: skip
