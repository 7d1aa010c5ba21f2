"""Reports as text, JSON, HTML and JUnit, all made from the same data."""
