"""How results are shown: a result describes itself as a `Report`, which text, HTML and pictures are made from."""
