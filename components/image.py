"""The one image that every component runs in, and the decorator that says so."""

import functools
import importlib.metadata
import os

from kfp import dsl

IMAGE = os.environ.get("COLLABOPT_IMAGE") or f"ghcr.io/collabopt/collabopt:{importlib.metadata.version('collabopt')}"

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
"""`dsl.component` on the collabopt image, which brings everything: nothing is installed when a stage starts."""
