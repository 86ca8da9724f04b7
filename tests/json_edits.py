"""Random damage to JSON files, and what every reader of them must do."""

import copy
import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from thermal_search.errors import ThermalSearchError

FAST = settings(
    deadline=10_000,
    max_examples=40,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
VALUES = st.sampled_from(
    [
        *(None, True, -1, 0, 1.5, 3000, 2**31, 10**30, 10**400),
        *(float("nan"), float("inf"), -1e308, 1e308),
        *("", "x", "../../x", "\x1b[2J", "\ud800", [], {}, [[]], {"a": {"b": 1}}, [1] * 100),
    ]
)


@st.composite
def edits(draw, content):
    """JSON, as bytes, with one value replaced, removed or added at any depth; or damaged."""
    edited = copy.deepcopy(content)
    parent, key = edited, draw(st.sampled_from(sorted(edited)))
    while isinstance(parent[key], (dict, list)) and parent[key] and draw(st.integers(0, 3)):
        parent = parent[key]
        key = draw(
            st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent)))
        )
    match draw(st.sampled_from(["replace", "replace", "remove", "add", "nest", "cut", "garble"])):
        case "replace":
            parent[key] = draw(VALUES)
        case "remove":
            del parent[key]
        case "add":
            edited[draw(st.text(max_size=5))] = draw(VALUES)
        case "nest":
            parent[key] = draw(st.sampled_from([[parent[key]], {"a": parent[key]}]))
        case "cut":
            text = json.dumps(edited).encode()
            return text[: draw(st.integers(0, len(text)))]
        case "garble":
            text = json.dumps(edited).encode()
            start = draw(st.integers(0, len(text)))
            return text[:start] + draw(st.binary(min_size=1, max_size=3)) + text[start + 1 :]
    return json.dumps(edited).encode()


def sentence_of(call):
    """What a call is refused with; empty if it is not."""
    try:
        call()
    except ThermalSearchError as refused:
        return str(refused)
    return ""


def ends_in_a_sentence(call):
    sentence = sentence_of(call)
    assert "\n" not in sentence
    assert "weights_only" not in sentence
