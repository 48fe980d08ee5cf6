"""Captions against what people said: BLEU, METEOR, ROUGE-L, CIDEr, and the tables of them."""
