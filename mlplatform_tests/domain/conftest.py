"""How Hypothesis runs here."""

import hypothesis

# How long an example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
