"""Numbers with units, for people."""


def nanoseconds(value: float, *, digits: int = 3) -> str:
    """Three digits, or none after the point if `digits` is another number, and a unit."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value >= scale:
            return f"{_three_digits(value / scale) if digits == 3 else f'{value / scale:.0f}'} {unit}"
    return f"{value:.0f} ns"


def count(value: float) -> str:
    """As it is, or in thousands or millions."""
    for unit, scale in ((" M", 1e6), (" k", 1e3)):
        if value >= scale:
            return f"{_three_digits(value / scale)}{unit}"
    return f"{value:.0f}"


def share(value: float | None) -> str:
    """Per cent; 100 and 0 only if it is exactly that."""
    if value is None:
        return "-"
    if 0 < value < 1:
        return f"{min(max(value * 100, 0.01), 99.99):.2f} %"
    return f"{value * 100:.0f} %"


def size(value: int) -> str:
    """In the largest unit of which there is at least one."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value} bytes"


def ratio(value: float) -> str:
    """A multiple."""
    return f"{value:.3g}x"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
