"""What makes these pages: formulas, executed pages, the op reference, the gallery."""
