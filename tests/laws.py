"""What the laws are tried on: any text, any JSON, and whatever becomes of them."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from hypothesis import strategies as st

from privet.acme.problems import Problem

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")

texts = st.text(st.characters(exclude_categories=[]), max_size=20)
"""Any text that JSON can say, lone surrogates too."""

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=10,
)
"""Any JSON."""


def outcome(call: Callable[Arguments, Value], *args: Arguments.args, **options: Arguments.kwargs) -> Value | Problem:
    """The value, or the problem in its place; any other exception breaks the law."""
    try:
        return call(*args, **options)
    except Problem as problem:
        return problem
