"""Tests of the tables of vendors, against emulators of them."""
