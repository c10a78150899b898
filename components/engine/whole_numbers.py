"""What Kubeflow Pipelines does to numbers: in a dict, whole ones arrive as floats."""


def as_given(value: object) -> object:
    """Undoes it for one value."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
