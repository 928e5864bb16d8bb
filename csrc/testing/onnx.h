// Where tests find ONNX Runtime and the models of make_models.py. For tests that link ms_test_models.
#pragma once

#include <cstdlib>
#include <string>

namespace mindserve::testing {

// The shared library: $MINDSERVE_TEST_ORT, else that of the Python which the build found; empty if there is none.
inline std::string OnnxRuntimeLibrary() {
  const char* given = std::getenv("MINDSERVE_TEST_ORT");
  return given != nullptr ? given : MINDSERVE_TEST_ORT_FOUND;
}

// The file of the model that make_models.py calls `name`.
inline std::string ModelFile(const std::string& name) {
  return MINDSERVE_TEST_MODELS_DIR "/" + name + ".onnx";
}

}  // namespace mindserve::testing
