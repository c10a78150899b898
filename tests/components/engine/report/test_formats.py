import math

import pytest

from collabopt.components.engine.report import formats


@pytest.mark.parametrize(
    "write", [formats.number, formats.signed, formats.count, formats.share, formats.bits, formats.milliseconds,
              formats.per_second, formats.plain],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_no_number_is_a_dash(write, value):
    assert write(value) == "-"


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (formats.number, 0.98885, "0.9889"),
        (formats.number, 0.0, "0.0000"),
        (formats.number, 1.5e-7, "1.5e-07"),
        (formats.number, 2.5e7, "2.5e+07"),
        (formats.signed, 0.0028, "+0.0028"),
        (formats.signed, -0.0028, "-0.0028"),
        (formats.count, 24280, "24,280"),
        (formats.share, 0.5, "50.0 %"),
        (formats.milliseconds, 0.0214, "0.0214"),
        (formats.milliseconds, 123.4, "123"),
        (formats.milliseconds, 12345.6, "12,346"),
        (formats.per_second, 0.0214, "46,700"),
        (formats.per_second, 2000.0, "0.5"),
        (formats.plain, 24280.0, "24,280"),
        (formats.plain, 1.0, "1.0000"),
        (formats.setting, True, "true"),
        (formats.setting, 1e-4, "0.0001"),
        (formats.setting, None, "none"),
    ],
)
def test_figures_as_text(write, value, expected):
    assert write(value) == expected


def test_names_break_after_underscores_and_are_escaped():
    assert str(formats.breakable("a_b<c>/d")) == "a_<wbr>b&lt;c&gt;/<wbr>d"
