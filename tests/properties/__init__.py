"""This folder shows what holds whatever is drawn and whatever happens: one claim, as many cases as it takes."""
