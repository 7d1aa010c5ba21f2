"""The Keras model as frozen data: layer calls and weight bindings. No framework here."""
