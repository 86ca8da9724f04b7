"""Network parts shared by two or more papers, and the larger networks of a single one."""

from thermal_search.networks.condition import ConditionPyramid
from thermal_search.networks.deep_convolutional import DcganDiscriminator, DcganGenerator
from thermal_search.networks.image_pool import ImagePool
from thermal_search.networks.initialization import initialize
from thermal_search.networks.patch import MultiScale, PatchDiscriminator
from thermal_search.networks.residual import ResidualBlock, ResidualTranslator
from thermal_search.networks.unet import UNet

__all__ = [
    "ConditionPyramid",
    "DcganDiscriminator",
    "DcganGenerator",
    "ImagePool",
    "MultiScale",
    "PatchDiscriminator",
    "ResidualBlock",
    "ResidualTranslator",
    "UNet",
    "initialize",
]
