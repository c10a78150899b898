"""The `.tflite` that ships: converted, inspected, evaluated, packed. What is said of a leaf is read here."""
