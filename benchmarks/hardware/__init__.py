"""How much of the hardware is used: by exits, by a walk at full depth, and by a sweep."""
