"""Commands, a file for each: a function calls one function of the library and prints what it returned."""
