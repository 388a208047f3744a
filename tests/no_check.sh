#!/usr/bin/env bash
# Stands for the C unit tests where they cannot be built.
. "$top_srcdir/tests/count.sh"
skip unit_tests 'configure did not find Check (https://libcheck.github.io/check), which the C unit tests need'
finish
