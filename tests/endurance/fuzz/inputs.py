"""Inputs: what is in the corpus, changed in its bytes, its lines or its JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

_ODD: Final = (0, -1, 1, 2**31, 2**63, 2**64, 10**30, 1e308, -0.0, "", " ", "\x00", "\u202e", "a" * 5000)
_VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(_ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Take a seed and change some of its bytes."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 5))):
        data = _changed_at(draw, data, seeds)
    return data


@st.composite
def changed_lines(draw: st.DrawFn, seeds: Sequence[bytes], end: bytes) -> bytes:
    """Take a seed and change some of its lines, which end with ``end``."""
    lines = [seed.split(end) for seed in seeds]
    data = draw(st.sampled_from(lines))
    for _ in range(draw(st.integers(0, 3))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 2))
        others = draw(st.sampled_from(lines))
        data = [*data[:at], *others[draw(st.integers(0, len(others))) :][:length], *data[at + length :]]
    return draw(changed_bytes([end.join(data)]))


def _changed_at(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
    other = draw(
        st.one_of(
            st.just(b""),
            st.binary(max_size=8),
            st.just(data[at : at + 40] * draw(st.integers(1, 50))),
            st.sampled_from(seeds),
        )
    )
    return data[:at] + other + data[at + length :]


@st.composite
def changed_json(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Take a seed that is JSON and change some of its values."""
    value = json.loads(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        value = _changed_value(draw, value)
    text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return draw(st.one_of(st.just(text), changed_bytes([text])))


def _changed_value(draw: st.DrawFn, value: Any) -> Any:
    """Change what one random way into the value leads to."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        name = draw(st.sampled_from(sorted(value)))
        rest = {other: value[other] for other in value if other != name}
        if not draw(st.integers(0, 4)):
            return rest
        if not draw(st.integers(0, 4)):
            return value | {draw(st.text(max_size=8)): draw(_VALUES)}
        return value | {name: _changed_value(draw, value[name])}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _changed_value(draw, value[at]), *value[at + draw(st.integers(0, 1)) :]]
    if isinstance(value, str) and draw(st.booleans()):
        return draw(changed_bytes([value.encode("utf-8", "surrogatepass")])).decode("utf-8", "replace")
    return draw(_VALUES)


def json_or_bytes(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Change JSON mostly as JSON, and sometimes as bytes."""
    whole = [seed for seed in seeds if _is_json(seed)]
    return st.one_of(changed_json(whole), changed_json(whole), changed_bytes(seeds))


def _is_json(seed: bytes) -> bool:
    try:
        json.loads(seed)
    except (ValueError, RecursionError):
        return False
    return True
