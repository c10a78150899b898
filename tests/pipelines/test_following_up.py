"""What is said of a run from outside."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from collabopt.pipelines.following_up import print_whereabouts


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:s3cret@mlflow.example.com", "mlflow.example.com"),
        ("postgresql://me:s3cret@db.example.com/runs", "mlflow ui --backend-store-uri postgresql://"),
    ],
)
def test_the_address_of_the_runs_is_printed_without_its_password(uri, shown, tmp_path, capsys):
    print_whereabouts(Console(), SimpleNamespace(tracking_uri=uri, output=tmp_path))
    printed = capsys.readouterr().out
    assert shown in printed and "s3cret" not in printed
