"""Overrides: how they begin and end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.merge import Override, put, surviving, words


def word(field="state", value="drain", key="a"):
    """Make an override of one backend of `web`."""
    return Override("web", key, field, value, "op", "2026-01-01T00:00:00.000Z")


def says(state="enabled", weight=1, key="a"):
    """Make what a desired state says of that backend."""
    return {"web": {key: {"state": state, "weight": weight}}}


def test_desired_state_that_repeats_itself_ends_nothing():
    """An override outlives a desired state that says the same about its field as before."""
    assert surviving([word()], says(), says()) == (word(),)


def test_change_of_the_same_field_ends_it():
    """When the desired state says something new about the field, its word holds."""
    assert surviving([word()], says(), says(state="disabled")) == ()


def test_change_of_another_field_does_not_end_it():
    """A new weight says nothing about the state."""
    assert surviving([word()], says(), says(weight=5)) == (word(),)


def test_removed_backend_or_service_ends_it():
    """What the desired state no longer has needs no override, and a later one of the same name gets none."""
    assert surviving([word()], says(), {"web": {}}) == ()
    assert surviving([word()], says(), {}) == ()


def test_discovery_ends_nothing():
    """A discovered backend that goes and returns meets its override again."""
    assert surviving([word()], {"web": None}, {"web": None}) == (word(),)


def test_moving_a_service_to_discovery_ends_it():
    """Backends that come from elsewhere are others, even if an id is the same."""
    assert surviving([word()], says(), {"web": None}) == ()


def test_word_that_repeats_the_configuration_takes_an_override_back():
    """Enabling what the configuration enables leaves no override."""
    assert put([word()], word(value="enabled"), configured="enabled") == ()


def test_newer_word_replaces_the_older_about_the_same_place_only():
    """There is one override for each field of each backend."""
    weight = word("weight", 5)
    assert put([word(), weight], word(value="disabled"), configured="enabled") == (
        weight,
        word(value="disabled"),
    )


def test_data_planes_are_told_overrides_and_what_was_taken_back():
    """Where an override was taken back the snapshot's own word is sent; backends that it lacks are left out."""
    services = {"web": {"backends": [{"id": "a", "state": "enabled", "weight": 3}]}}
    retracted = [("web", "a", "weight"), ("web", "gone", "state")]
    assert words([word(), word(key="gone")], retracted, services) == {
        ("web", "a", "state"): "drain",
        ("web", "a", "weight"): 3,
    }


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["enabled", "drain", "disabled"]), min_size=1),
    st.sampled_from(["enabled", "drain", "disabled"]),
)
def test_last_word_holds(said, configured):
    """Whatever was said before, the last word is what holds."""
    overrides = ()
    for value in said:
        overrides = put(overrides, word(value=value), configured=configured)
    holds = overrides[0].value if overrides else configured
    assert holds == said[-1]
    assert len(overrides) <= 1
