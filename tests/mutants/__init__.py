"""Mutation testing: one thing is made wrong at a time, and some test must fail.

Why neither tool is used whole. cosmic-ray starts the test command for every mutant: importing torch and transformers is
four to ten seconds of it, more than most of our tests take. mutmut 3 forks from a process that has everything imported,
but switches between mutants inside functions that it wraps: it leaves out decorated functions (properties, cached ones)
and everything outside functions, puts arguments of all calls to None (noticed by whatever comes by), changes texts of
messages (noticed by tests of wording), and lacks the faults we look for most: an argument or an ingredient of a key
forgotten, `max` for `min`, a sum for a mean, a statement gone. So the operators are mutmut's, which are plain functions
on libcst nodes, with ours beside them in the same form (`operators`), and the driver is ours: a fork per mutant that
imports the whole repository anew from a copy (`runner`), so that the mutant is what a programmer would have written.
"""
