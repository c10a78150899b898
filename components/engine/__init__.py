"""What runs inside the image: models, data, training, compression, the deployed bytes, tracking and the gate.

The engine knows no Kubeflow Pipelines: every stage is a plain function over directories. Importing the package is
cheap; TensorFlow is imported by the functions that need it.
"""

import os

# TensorFlow Model Optimization works on Keras 2 only, and TensorFlow reads this when `tf.keras` is first touched.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
