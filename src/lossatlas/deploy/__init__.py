"""A trained network outside its study: predictions of new images, and files for other programs."""

from lossatlas.data.preparation import Preparation
from lossatlas.deploy.export import export
from lossatlas.deploy.network import Deployed, DeployError, load
from lossatlas.deploy.predict import masks_to_write, predict_folder, predict_image, score

__all__ = [
    "DeployError",
    "Deployed",
    "Preparation",
    "export",
    "load",
    "masks_to_write",
    "predict_folder",
    "predict_image",
    "score",
]
