"""Online learning: from sources through the log and lag features to models and their champion."""
