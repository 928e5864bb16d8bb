# How every folder under csrc/ declares its library and its tests.

add_library(mindserve_flags INTERFACE)
target_include_directories(mindserve_flags INTERFACE ${PROJECT_SOURCE_DIR}/csrc)
target_compile_options(mindserve_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wnon-virtual-dtor -Woverloaded-virtual -Wshadow -fvisibility=hidden)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # gcc 12 sees overlaps in std::string's operator+ that can't be (its bug 105651).
  target_compile_options(mindserve_flags INTERFACE -Wno-restrict)
endif()
if(MINDSERVE_WERROR)
  target_compile_options(mindserve_flags INTERFACE -Werror)
endif()
if(MINDSERVE_SANITIZE)
  target_compile_options(mindserve_flags INTERFACE -fsanitize=${MINDSERVE_SANITIZE} -fno-omit-frame-pointer)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # With a sanitizer's code in between, gcc 12 takes a std::optional that is empty for one that was not set up.
    target_compile_options(mindserve_flags INTERFACE -Wno-maybe-uninitialized)
    if(MINDSERVE_SANITIZE MATCHES "thread")
      # gcc warns that ThreadSanitizer takes no note of fences. Ours order atomics, which it sees without them.
      target_compile_options(mindserve_flags INTERFACE -Wno-tsan)
    endif()
  endif()
  if(MINDSERVE_SANITIZE MATCHES "undefined")
    # A finding ends the program, so that a test fails over it.
    target_compile_options(mindserve_flags INTERFACE -fno-sanitize-recover=all)
  endif()
  target_link_options(mindserve_flags INTERFACE -fsanitize=${MINDSERVE_SANITIZE})
  # A test's own code is most of what is compiled, and takes no time to run.
  set(MINDSERVE_TEST_OPTIONS -O0)
endif()
if(MINDSERVE_FUZZERS)
  # Everything counts the ways that it takes; libFuzzer itself is linked only where its main is wanted.
  target_compile_options(mindserve_flags INTERFACE -fsanitize=fuzzer-no-link)
  list(APPEND MINDSERVE_TEST_OPTIONS
    -fno-sanitize-coverage=edge,inline-8bit-counters,pc-table,trace-cmp,indirect-calls,stack-depth)
endif()

# mindserve_library(<folder> SOURCES a.cc b.cc DEPS base tensor LINK third::party)
# A library of a folder under csrc/; DEPS are other folders, LINK outside libraries.
function(mindserve_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LINK" ${ARGN})
  list(TRANSFORM ARG_DEPS PREPEND ms_)
  if(ARG_SOURCES)
    add_library(ms_${name} STATIC ${ARG_SOURCES})
    target_link_libraries(ms_${name} PUBLIC mindserve_flags ${ARG_DEPS} PRIVATE ${ARG_LINK})
  else()
    add_library(ms_${name} INTERFACE)
    target_link_libraries(ms_${name} INTERFACE mindserve_flags ${ARG_DEPS} ${ARG_LINK})
  endif()
endfunction()

# mindserve_test(<folder> a_test.cc b_test.cc LINK third::party)
# One test program a folder: ms_<folder>_test, found by ctest case by case.
function(mindserve_test name)
  if(NOT MINDSERVE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(ms_${name}_test ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(ms_${name}_test PRIVATE ms_${name} GTest::gmock GTest::gtest_main ${ARG_LINK})
  target_compile_options(ms_${name}_test PRIVATE ${MINDSERVE_TEST_OPTIONS})
  gtest_discover_tests(ms_${name}_test TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST)
endfunction()
