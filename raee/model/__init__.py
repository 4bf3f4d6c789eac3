"""The frozen model: loaded from the hub or a folder, walked layer by layer, asked with a prompt."""
