"""The devices that run the model, behind one protocol."""
