# ms_test_models: small ONNX models for tests, made at build time by make_models.py, and where ONNX Runtime is. A test that
# links it reads both through testing/onnx.h.

include_guard(GLOBAL)

find_program(MINDSERVE_TEST_PYTHON NAMES python python3 HINTS ${PROJECT_SOURCE_DIR}/.venv/bin
  DOC "Python with the packages onnx and onnxruntime, for tests")

# Without the package the tests that need it say so; MINDSERVE_TEST_ORT in the environment names another library.
execute_process(
  COMMAND ${MINDSERVE_TEST_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/find_onnxruntime.py
  OUTPUT_VARIABLE MINDSERVE_TEST_ORT_FOUND OUTPUT_STRIP_TRAILING_WHITESPACE)

set(MINDSERVE_TEST_MODELS_DIR ${PROJECT_BINARY_DIR}/test_models)
add_custom_command(
  OUTPUT ${MINDSERVE_TEST_MODELS_DIR}/stamp
  COMMAND ${MINDSERVE_TEST_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/make_models.py ${MINDSERVE_TEST_MODELS_DIR}
  COMMAND ${CMAKE_COMMAND} -E touch ${MINDSERVE_TEST_MODELS_DIR}/stamp
  DEPENDS ${CMAKE_CURRENT_LIST_DIR}/make_models.py
  COMMENT "Making ONNX models for tests" VERBATIM)
add_custom_target(ms_test_models_files DEPENDS ${MINDSERVE_TEST_MODELS_DIR}/stamp)

add_library(ms_test_models INTERFACE)
add_dependencies(ms_test_models ms_test_models_files)
target_compile_definitions(ms_test_models INTERFACE
  MINDSERVE_TEST_MODELS_DIR="${MINDSERVE_TEST_MODELS_DIR}" MINDSERVE_TEST_ORT_FOUND="${MINDSERVE_TEST_ORT_FOUND}")
