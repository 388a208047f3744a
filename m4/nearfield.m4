# NF_CFLAGS(VARIABLE, FLAGS): appends to VARIABLE each of FLAGS that the C compiler takes.
AC_DEFUN([NF_CFLAGS], [
  for nf_flag in $2; do
    AS_VAR_PUSHDEF([nf_cache], [nf_cv_cc_takes_$nf_flag])
    AC_CACHE_CHECK([whether $CC takes $nf_flag], [nf_cache], [
      nf_save_CFLAGS=$CFLAGS
      CFLAGS="$CFLAGS -Werror $nf_flag"
      AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])], [AS_VAR_SET([nf_cache], [yes])], [AS_VAR_SET([nf_cache], [no])])
      CFLAGS=$nf_save_CFLAGS
    ])
    AS_VAR_IF([nf_cache], [yes], [$1="$$1 $nf_flag"])
    AS_VAR_POPDEF([nf_cache])
  done
  AC_SUBST([$1])
])

# NF_KERNELS(NAME, FLAGS, INCLUDE, STATEMENT): whether kernels for instruction set NAME can be built, judged by compiling
# STATEMENT with FLAGS. Sets NAME_CFLAGS, the automake conditional and the config.h macro NF_HAVE_NAME.
AC_DEFUN([NF_KERNELS], [
  AC_CACHE_CHECK([whether $CC builds $1 kernels], [nf_cv_kernels_$1], [
    nf_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS $2"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM([$3], [$4])], [nf_cv_kernels_$1=yes], [nf_cv_kernels_$1=no])
    CFLAGS=$nf_save_CFLAGS
  ])
  AC_SUBST([$1_CFLAGS], ["$2"])
  AM_CONDITIONAL([NF_HAVE_$1], [test "$nf_cv_kernels_$1" = yes])
  AS_VAR_IF([nf_cv_kernels_$1], [yes], [AC_DEFINE([NF_HAVE_$1], [1], [Define to 1 if the $1 kernels are built.])])
])

# NF_WITH(NAME, VARIABLE, PKG-CONFIG MODULE, FALLBACK LIBS, HEADER, FUNCTION, USE): the option --with-NAME=yes|no|guess
# for an optional library. A module that pkg-config finds counts only if a program links with it, so that a library of
# the build machine is not taken for one of the host. Sets VARIABLE_CFLAGS, VARIABLE_LIBS, nf_with_VARIABLE (yes or no),
# and HAVE_VARIABLE in config.h.
AC_DEFUN([NF_WITH], [
  AC_ARG_WITH([$1], [AS_HELP_STRING([--with-$1=yes|no|guess], [$7 (default: guess)])], [], [with_$1=guess])
  AC_ARG_VAR([$2_CFLAGS], [C compiler flags for $1, overriding pkg-config])
  AC_ARG_VAR([$2_LIBS], [linker flags for $1, overriding pkg-config])
  nf_with_$2=no
  AS_IF([test "x$with_$1" != xno], [
    m4_ifval([$3], [
      AS_IF([test "x$$2_LIBS" = x && test "x$PKG_CONFIG" != x && $PKG_CONFIG --exists "$3"], [
        $2_CFLAGS=`$PKG_CONFIG --cflags "$3"`
        $2_LIBS=`$PKG_CONFIG --libs "$3"`
      ])
    ])
    m4_ifval([$4], [test "x$$2_LIBS" != x || $2_LIBS="$4"])
    AC_MSG_CHECKING([for $1])
    nf_save_CPPFLAGS=$CPPFLAGS
    nf_save_LIBS=$LIBS
    CPPFLAGS="$CPPFLAGS $$2_CFLAGS"
    LIBS="$$2_LIBS $LIBS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([
#include <stddef.h>
#include <stdio.h>
#include <$5>
], [return (void (*)(void))$6 == NULL;])], [nf_with_$2=yes])
    CPPFLAGS=$nf_save_CPPFLAGS
    LIBS=$nf_save_LIBS
    AC_MSG_RESULT([$nf_with_$2])
    AS_IF([test "$nf_with_$2" = no && test "x$with_$1" = xyes],
          [AC_MSG_ERROR([--with-$1 was given but no program using <$5> links])])
  ])
  AS_IF([test "$nf_with_$2" = yes],
        [AC_DEFINE([HAVE_$2], [1], [Define to 1 if $1 is used.])],
        [$2_CFLAGS= $2_LIBS=])
])

# NF_CUDA: the option --with-cuda=yes|no|guess|DIR. Sets the automake conditionals NF_HAVE_CUDA (the backend is built:
# all but "no", where there is dlopen) and NF_HAVE_NVCC (with kernels), nf_with_CUDA, nf_with_NVCC, nf_nvcc_absent, the
# reason, which is NF_NVCC_ABSENT in config.h, and substitutes NVCC, CUDA_ARCHS, CUDA_TOOLKIT, nvcc's version as
# 1000 * major + 10 * minor, and CUDA_CPPFLAGS, which only a test of our declarations needs.
AC_DEFUN([NF_CUDA], [
  AC_ARG_WITH([cuda],
    [AS_HELP_STRING([--with-cuda=yes|no|guess|DIR], [compile the cuda backend's kernels with nvcc, of DIR/bin (default: guess)])],
    [], [with_cuda=guess])
  AC_ARG_VAR([NVCC], [CUDA compiler, for the kernels of the cuda backend; no: none])
  AC_ARG_VAR([CUDA_ARCHS], [what it compiles for: compute capabilities, the least first (default: 80 90 100 120)])
  test "x$CUDA_ARCHS" != x || CUDA_ARCHS="80 90 100 120"
  nf_with_CUDA=no
  nf_with_NVCC=no
  nf_nvcc_absent=disabled
  CUDA_TOOLKIT=0
  AS_CASE([$with_cuda], [no], [], [
    AC_SEARCH_LIBS([dlopen], [dl], [nf_with_CUDA=yes])
    AS_IF([test "x$with_cuda" != xguess && test "$nf_with_CUDA" = no],
          [AC_MSG_ERROR([--with-cuda=$with_cuda was given but there is no dlopen])])
    AS_CASE([$with_cuda],
      [yes|guess], [AS_IF([test "x$NVCC" = x],
                          [AC_PATH_PROG([NVCC], [nvcc], [], [$PATH$PATH_SEPARATOR/usr/local/cuda/bin])])],
      [NVCC=$with_cuda/bin/nvcc])
    AS_CASE([$NVCC],
      [''], [nf_nvcc_absent="there is no nvcc"],
      [no], [nf_nvcc_absent="disabled by NVCC=no"],
      [NF_CUDA_CHECK_ARCHS
       AS_IF([test "x$nf_archs_refused" = x], [NF_CUDA_TRY], [nf_nvcc_absent=$nf_archs_refused])])
    AS_IF([test "x$with_cuda" != xguess && test "$nf_with_NVCC" = no],
          [AC_MSG_ERROR([--with-cuda=$with_cuda was given but $nf_nvcc_absent])])
  ])
  AS_VAR_IF([nf_with_NVCC], [no], [AC_DEFINE_UNQUOTED([NF_NVCC_ABSENT], ["$nf_nvcc_absent"],
                                                      [Why the cuda backend has no kernels, where that is so.])])
  dnl spills.awk judges what ptxas says of registers.
  AS_VAR_IF([enable_maintainer_checks], [yes], [NVCC_CHECKS="-Werror all-warnings -Xptxas -v"])
  AC_SUBST([NVCC_CHECKS])
  AC_SUBST([CUDA_TOOLKIT])
  AC_SUBST([CUDA_CPPFLAGS])
  AM_CONDITIONAL([NF_HAVE_CUDA], [test "$nf_with_CUDA" = yes])
  AM_CONDITIONAL([NF_HAVE_NVCC], [test "$nf_with_CUDA$nf_with_NVCC" = yesyes])
])

# Sets nf_archs_refused: why kernels cannot be for CUDA_ARCHS, or nothing.
AC_DEFUN([NF_CUDA_CHECK_ARCHS], [
  nf_archs_refused=
  nf_least=
  for nf_arch in $CUDA_ARCHS; do
    AS_CASE([$nf_arch],
      [*[[!0-9]]*], [nf_archs_refused="CUDA_ARCHS has $nf_arch: these are numbers, such as 80 for compute capability 8.0"],
      [AS_IF([test "$nf_arch" -lt 80],
             [nf_archs_refused="CUDA_ARCHS has $nf_arch: the kernels need compute capability 8.0, which is 80, or later"],
             [test "$nf_arch" -lt "${nf_least:=$nf_arch}"],
             [nf_archs_refused="CUDA_ARCHS has $nf_arch after $nf_least: the least comes first"])])
  done
])

# Whether nvcc compiles for all of CUDA_ARCHS.
AC_DEFUN([NF_CUDA_TRY], [
  AC_MSG_CHECKING([whether $NVCC compiles for $CUDA_ARCHS])
  echo '__global__ void kernel(int *x) { *x = 1; }' >conftest.cu
  nf_codes=
  for nf_arch in $CUDA_ARCHS; do nf_codes="$nf_codes -gencode arch=compute_$nf_arch,code=sm_$nf_arch"; done
  AS_IF([$NVCC -std=c++17 -fatbin --compress-mode=size $nf_codes -o conftest.fatbin conftest.cu >&AS_MESSAGE_LOG_FD 2>&1], [
    nf_with_NVCC=yes
    CUDA_CPPFLAGS=-I`dirname "$NVCC"`/../include
    CUDA_TOOLKIT=`$NVCC --version | sed -n 's/.*release \([[0-9]]*\)\.\([[0-9]]*\).*/\1 \2/p' | { read major minor; expr $major \* 1000 + $minor \* 10; }`
  ], [nf_nvcc_absent="$NVCC does not compile for $CUDA_ARCHS"])
  rm -f conftest.cu conftest.fatbin
  AC_MSG_RESULT([$nf_with_NVCC])
])
